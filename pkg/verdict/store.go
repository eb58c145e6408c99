// SPDX-License-Identifier: Apache-2.0

package verdict

// named reports whether the datagram has a name for file descriptors that a service manager takes.
func (d *Datagram) named() bool {
	name, ok := d.Text.Lookup("FDNAME")
	return ok && isFDName(name)
}

func (s *scene) fds() uint32 {
	return uint32(known(s, s.datagram.FDs, "how many file descriptors came with it"))
}

var store = []rule{
	{
		id: "D28", key: "FDNAME", source: reads, outcome: NoEffect,
		when:   func(s *scene) bool { return !isFDName(s.line.Value) },
		reason: "a name is printable ASCII without a colon, at most 255 bytes",
		cure:   "send another name",
	},
	{
		id: "D27", key: "FDNAME", source: reads, outcome: NoEffect,
		when:   func(s *scene) bool { return !s.datagram.has("FDSTORE=1") && !s.datagram.has("FDSTOREREMOVE=1") },
		reason: "it names what FDSTORE=1 or FDSTOREREMOVE=1 in the same datagram are about, and there is none",
	},
	{id: "D26a", key: "FDNAME", source: reads, outcome: Heeded, reason: "it is the name in the store"},
	{
		id: "D27", key: "FDPOLL", source: reads, outcome: NoEffect,
		when:   func(s *scene) bool { return !s.datagram.has("FDSTORE=1") || s.datagram.has("FDSTOREREMOVE=1") },
		reason: "it is about FDSTORE=1 in the same datagram, and there is none",
	},
	{id: "D26a", key: "FDPOLL", source: reads, outcome: Heeded, reason: "what is stored stays when its other end is closed"},
	{
		id: "D28", key: "FDSTOREREMOVE", source: reads, outcome: NoEffect,
		when:   func(s *scene) bool { return !s.datagram.named() },
		reason: "it takes a valid FDNAME= in the same datagram",
		cure:   "send FDNAME= with the name in the store",
	},
	{
		id: "D26b", key: "FDSTOREREMOVE", source: "service_remove_fd_store", outcome: Heeded,
		reason: "nothing of that name is in the store any more",
		then:   func(s *scene) { s.unit.FDStored = nil },
	},
	{
		id: "D26c", key: "FDSTORE", source: reads, outcome: Ignored,
		when:   func(s *scene) bool { return s.datagram.has("FDSTOREREMOVE=1") },
		reason: "FDSTOREREMOVE=1 in the same datagram takes its place",
	},
	{
		id: "D27", key: "FDSTORE", source: reads, outcome: NoEffect,
		when:   func(s *scene) bool { return s.fds() == 0 },
		reason: "no file descriptor came with it",
		cure:   "pass the file descriptors in the same datagram (sd_pid_notify_with_fds(3))",
	},
	{
		id: "D26", key: "FDSTORE", source: stores, outcome: Ignored,
		when:   func(s *scene) bool { return s.storeMax() == 0 },
		reason: "nothing is stored: FileDescriptorStoreMax=0",
		cure:   "set FileDescriptorStoreMax=",
	},
	{
		id: "D26", key: "FDSTORE", source: stores, outcome: Ignored,
		when:   func(s *scene) bool { return s.stored() >= s.storeMax() },
		reason: "nothing is stored: FileDescriptorStoreMax=$max, and it is full",
		cure:   "set FileDescriptorStoreMax= higher, or remove what is stored with FDSTOREREMOVE=1",
	},
	{
		id: "D26d", key: "FDSTORE", source: stores, outcome: Heeded,
		when:   func(s *scene) bool { return s.stored()+s.fds() > s.storeMax() },
		reason: "not all of $fds file descriptors are stored: FileDescriptorStoreMax=$max, and $stored were",
		cure:   "set FileDescriptorStoreMax= higher",
		then:   func(s *scene) { s.unit.FDStored = nil },
	},
	{
		id: "D26a", key: "FDSTORE", source: stores, outcome: Heeded,
		reason: "they are in the store",
		then:   func(s *scene) { s.unit.FDStored = nil }, // one that is there already is not stored again
	},
}

func (s *scene) storeMax() uint32 {
	return known(s, s.unit.FDStoreMax, "FileDescriptorStoreMax= of "+s.unit.Name)
}

func (s *scene) stored() uint32 {
	return known(s, s.unit.FDStored, "how much "+s.unit.Name+" has stored")
}
