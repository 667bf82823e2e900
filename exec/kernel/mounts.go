package kernel

import (
	"os"
	"strings"
)

// MountsBeneath returns what is mounted beneath a directory, by its path without links: mount points, as mountinfo writes them
// (proc_pid_mountinfo(5)).
func MountsBeneath(dir string) (points []string, err error) {
	text, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	return mountsBeneath(string(text), dir), nil
}

func mountsBeneath(mountinfo, dir string) (points []string) {
	escaped := strings.NewReplacer(" ", `\040`, "\t", `\011`, "\n", `\012`, `\`, `\134`).Replace(dir)
	for line := range strings.Lines(mountinfo) {
		const point = 4
		if fields := strings.Fields(line); len(fields) > point && strings.HasPrefix(fields[point], escaped+"/") {
			points = append(points, fields[point])
		}
	}
	return points
}
