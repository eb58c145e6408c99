// SPDX-License-Identifier: Apache-2.0

package proc

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// mapped is a file that a process has mapped (proc_pid_maps(5)).
type mapped struct {
	// start and end are where its beginning is mapped, path what it is called.
	start, end uint64
	path       string
}

// files are the files that the process has mapped from their beginning, each once: its program, and what that has
// loaded.
func (p Process) files() ([]mapped, error) {
	content, err := p.read("maps")
	if err != nil {
		return nil, err
	}
	var all []mapped
	for line := range bytes.Lines(content) {
		// 7f0e6a200000-7f0e6a228000 r--p 00000000 08:01 1234 /usr/lib/libc.so.6
		const columns = 6
		fields := strings.SplitN(strings.Join(strings.Fields(string(line)), " "), " ", columns)
		if len(fields) < columns || strings.Trim(fields[2], "0") != "" || !strings.HasPrefix(fields[5], "/") {
			continue
		}
		from, to, _ := strings.Cut(fields[0], "-")
		start, err := strconv.ParseUint(from, 16, 64)
		if err != nil {
			continue
		}
		end, err := strconv.ParseUint(to, 16, 64)
		if err != nil || slices.ContainsFunc(all, func(m mapped) bool { return m.path == fields[5] }) {
			continue
		}
		all = append(all, mapped{start, end, fields[5]})
	}
	return all, nil
}

// openMapped opens what is mapped, also if its name leads to something else by now.
func (p Process) openMapped(m mapped) (*os.File, error) {
	return os.Open(fmt.Sprintf("/proc/%d/map_files/%x-%x", p.PID, m.start, m.end))
}

var (
	errNoEnviron = errors.New("the process has no C library whose environment could be found")
	// libraries are what C libraries are called.
	libraries = regexp.MustCompile(`^(libc\.so\.6|libc-2\.\d+\.so|ld-musl-.*|libc\.musl-.*)$`)
)

const (
	// environMax is how many variables of an environment are looked at, variableMax how many bytes of each.
	environMax, variableMax = 4096, 512
	pointerSize             = 8
)

// Variables returns what the C library of the process has in its environment now (environ(7)) of variables with
// some names. The error says that there is no such library, or that it cannot be looked at.
func (p Process) Variables(names ...string) (map[string]string, error) {
	return Within(p, "memory", func(p Process) (map[string]string, error) { return p.variables(names) }, nil)
}

func (p Process) variables(names []string) (map[string]string, error) {
	at, err := p.environ()
	if err != nil {
		return nil, err
	}
	pointer := p.memory(p.PID, at, pointerSize)
	if len(pointer) < pointerSize {
		return nil, errNoEnviron
	}
	found := make(map[string]string)
	list := binary.NativeEndian.Uint64(pointer)
	if list == 0 {
		return nil, errNoEnviron // it is only just executed; clearenv(3) leaves the same
	}
	for i := range uint64(environMax) {
		pointer := p.memory(p.PID, list+i*pointerSize, pointerSize)
		if len(pointer) < pointerSize {
			return nil, errNoEnviron
		}
		text := binary.NativeEndian.Uint64(pointer)
		if text == 0 {
			return found, nil
		}
		variable, _, _ := bytes.Cut(p.text(text), []byte{0})
		name, value, ok := strings.Cut(string(variable), "=")
		if _, again := found[name]; ok && !again && slices.Contains(names, name) {
			found[name] = value
		}
	}
	return nil, errNoEnviron
}

// text reads what is at an address, a page at a time: what is behind it may not be mapped.
func (p Process) text(at uint64) []byte {
	const page = 4096
	first := min(variableMax, page-int(at%page))
	text := p.memory(p.PID, at, first)
	if len(text) == first && first < variableMax && bytes.IndexByte(text, 0) < 0 {
		text = append(text, p.memory(p.PID, at+uint64(first), variableMax-first)...)
	}
	return text
}

// environ is the address of the variable of that name: of the program, if it has a copy of its own, else of the C
// library (ELF: R_X86_64_COPY).
func (p Process) environ() (uint64, error) {
	files, err := p.files()
	if err != nil {
		return 0, err
	}
	exe, _ := p.Link("exe")
	exe = strings.TrimSuffix(exe, " (deleted)")
	var library, program *mapped
	for i := range files {
		switch m := &files[i]; {
		case libraries.MatchString(path.Base(m.path)) && library == nil:
			library = m
		case m.path == exe:
			program = m
		}
	}
	for _, m := range []*mapped{program, library} {
		if m == nil {
			continue
		}
		if at, ok := p.symbol(*m, "environ", "__environ", "_environ"); ok {
			return at, nil
		}
	}
	return 0, errNoEnviron
}

// symbol is the address of a variable that a mapped file defines.
func (p Process) symbol(m mapped, names ...string) (at uint64, ok bool) {
	file, err := p.openMapped(m)
	if err != nil {
		return 0, false
	}
	defer file.Close()
	program, err := elf.NewFile(file)
	if err != nil || program.Class != elf.ELFCLASS64 {
		return 0, false
	}
	symbols, _ := program.DynamicSymbols() // none: it is linked statically
	static, _ := program.Symbols()
	for _, s := range slices.Concat(symbols, static) {
		if s.Section == elf.SHN_UNDEF || s.Value == 0 || !slices.Contains(names, s.Name) {
			continue
		}
		if program.Type == elf.ET_EXEC {
			return s.Value, true
		}
		return m.start + s.Value, true
	}
	return 0, false
}
