package resolver

import (
	"bufio"
	"io"
	"net/netip"
	"os"
	"slices"
	"strings"

	"github.com/sandlock-go/sandlock/proxy/protocol"
)

const (
	maxServers = 3       // resolv.conf(5): MAXNS
	maxFile    = 4 << 20 // bytes
)

// nameservers reads the servers of a file such as /etc/resolv.conf (resolv.conf(5)): 127.0.0.1 where there is none.
func nameservers(path string) []netip.AddrPort {
	var list []netip.AddrPort
	forLines(path, ";#", func(fields []string) {
		if len(fields) < 2 || fields[0] != "nameserver" || len(list) == maxServers {
			return
		}
		if a, err := netip.ParseAddr(fields[1]); err == nil {
			list = append(list, netip.AddrPortFrom(a, 53))
		}
	})
	if len(list) == 0 {
		list = append(list, netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), 53))
	}
	return list
}

// hostsFile reads a file such as /etc/hosts (hosts(5)). Names are in lower case.
func hostsFile(path string) map[string][]netip.Addr {
	hosts := map[string][]netip.Addr{}
	forLines(path, "#", func(fields []string) {
		a, err := netip.ParseAddr(fields[0])
		if err != nil || a.Zone() != "" {
			return
		}
		for _, name := range fields[1:] {
			name = strings.ToLower(strings.TrimSuffix(name, "."))
			if protocol.IsName(name) && !slices.Contains(hosts[name], a.Unmap()) {
				hosts[name] = append(hosts[name], a.Unmap())
			}
		}
	})
	return hosts
}

// forLines calls f with the words of each line that has some, up to a comment. A file that cannot be read has none.
func forLines(path, comment string, f func(fields []string)) {
	file, err := os.Open(path)
	if err != nil {
		return
	}
	defer file.Close()
	lines := bufio.NewScanner(io.LimitReader(file, maxFile))
	for lines.Scan() {
		line := lines.Text()
		if i := strings.IndexAny(line, comment); i >= 0 {
			line = line[:i]
		}
		if fields := strings.Fields(line); len(fields) > 0 {
			f(fields)
		}
	}
}
