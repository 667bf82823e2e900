package machine

import (
	"bytes"
	"fmt"
	"os"
)

// Snapshot is a file that tells of the machine, as programs of the smaller one are to see it now.
type Snapshot struct {
	Path    string
	Content []byte
}

// Snapshots makes the files of a machine with so many CPUs and bytes of memory, 0 for as many as there are, for a program that may
// run on the CPUs in mask; moving ones are those that change. It is for whoever has the files mounted over the kernel's instead of
// answering their opens.
func Snapshots(cpus int, memory, used uint64, mask []byte, moving bool) (list []Snapshot, err error) {
	add := func(path string, write func(host []byte) ([]byte, error)) {
		if moving && !Moves(path) {
			return
		}
		host, e := os.ReadFile(path)
		if os.IsNotExist(e) {
			return
		}
		var content []byte
		if e == nil {
			content, e = write(host)
		}
		if e != nil && err == nil {
			err = fmt.Errorf("%s: %w", path, e)
		}
		list = append(list, Snapshot{path, content})
	}
	if memory > 0 {
		add("/proc/meminfo", func(host []byte) ([]byte, error) { return meminfo(host, memory, used) })
	}
	if cpus > 0 {
		mask = bytes.Clone(mask)
		First(mask, cpus)
		for path, write := range map[string]func([]byte, choice) ([]byte, error){
			"/proc/cpuinfo": cpuinfo, "/proc/stat": stat, "/sys/devices/system/cpu/online": cpuList,
			"/sys/devices/system/cpu/possible": cpuList, "/sys/devices/system/cpu/present": cpuList,
		} {
			add(path, func(host []byte) ([]byte, error) { return write(host, choose(mask, cpus)) })
		}
	}
	return list, err
}

// Moves reports whether a file changes while a sandbox runs.
func Moves(path string) bool { return path == "/proc/meminfo" || path == "/proc/stat" }
