# Podman for a machine without a network and without controllers of control groups, and
# an image with nothing in it but web.
if ! [ -e /etc/containers/storage.conf ]; then
	mkdir -p /etc/containers
	cat >/etc/containers/containers.conf <<-END
		[containers]
		netns = "none"
		default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]
		pids_limit = 0
		volumes = ["/shared:/shared"]
		[engine]
		events_logger = "none"
	END
	# That of Debian 12 sets a limit that not all machines permit.
	! grep -q bookworm /etc/os-release || echo 'runtime = "runc"' >>/etc/containers/containers.conf
	mkdir -p /run/systemd/system/dbus.socket.d
	printf "[Unit]\nDefaultDependencies=no\n" >/run/systemd/system/dbus.socket.d/x.conf
	systemctl daemon-reload
	systemctl start dbus.service
	echo '{"default": [{"type": "insecureAcceptAnything"}]}' >/etc/containers/policy.json
	printf '[storage]\ndriver = "vfs"\nrunroot = "/run/containers"\ngraphroot = "/var/lib/containers"\n' >/etc/containers/storage.conf
	podman import --change 'ENTRYPOINT ["/web"]' /web/image.tar example.com/web
fi
