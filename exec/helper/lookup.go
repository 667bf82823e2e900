package helper

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sandlock-go/sandlock/exec/kernel"
	"github.com/sandlock-go/sandlock/proxy/protocol"
)

// lookupTime bounds a lookup as a whole: what the helper allows itself, and a little.
const lookupTime = protocol.LookupTime + 3*time.Second

// maxAnswer bounds what is read of an answer, in bytes.
const maxAnswer = 1 << 22

// Lookup resolves names, in lower case without final dot, once each through the host's resolver. Those that it has no
// addresses for are in failed, with the reason. err is for what concerns no single name.
func (p *Program) Lookup(names []string) (found map[string][]netip.Addr, failed map[string]string, err error) {
	in, err := kernel.SealedFile("names", []byte(strings.Join(names, "\n")+"\n"))
	if err != nil {
		return nil, nil, err
	}
	defer unix.Close(in)
	// Files and no pipes: nobody has to read while it writes.
	var out [2]int
	for i := range out {
		if out[i], err = unix.MemfdCreate("answer", unix.MFD_CLOEXEC); err != nil {
			return nil, nil, fmt.Errorf("memfd_create: %w", err)
		}
		defer unix.Close(out[i])
	}
	process, err := p.Start(protocol.JobLookup, in, out[0], out[1])
	if err != nil {
		return nil, nil, err
	}
	status, ended := process.Wait(lookupTime)
	if !ended {
		process.End()
		return nil, nil, fmt.Errorf("the helper has not resolved the names in %v", lookupTime)
	}
	hosts, err := readAnswer(out[0])
	if err != nil {
		return nil, nil, err
	}
	complaints, err := readAnswer(out[1])
	if err != nil {
		return nil, nil, err
	}
	if found, err = parseHosts(hosts, names); err != nil {
		return nil, nil, fmt.Errorf("the helper's answer: %w", err)
	}
	failed = parseComplaints(complaints, names)
	for _, name := range names {
		if _, ok := found[name]; !ok && failed[name] == "" {
			failed[name] = fmt.Sprintf("the helper gave no answer (%s)", describe(status.Exited(), status.ExitStatus()))
		}
	}
	return found, failed, nil
}

func describe(exited bool, code int) string {
	if exited {
		return fmt.Sprintf("exit code %d", code)
	}
	return "it was killed"
}

func readAnswer(fd int) (string, error) {
	b := make([]byte, 64<<10)
	for n := 0; ; {
		got, err := unix.Pread(fd, b[n:], int64(n))
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return "", fmt.Errorf("read the helper's answer: %w", err)
		case got == 0:
			return string(b[:n]), nil
		}
		if n += got; n == len(b) {
			if n >= maxAnswer {
				return "", fmt.Errorf("the helper's answer has more than %d bytes", maxAnswer)
			}
			b = append(b, make([]byte, len(b))...)
		}
	}
}

// parseHosts reads lines of hosts(5) with one name each. It takes nothing but addresses of names that were asked for.
func parseHosts(text string, names []string) (map[string][]netip.Addr, error) {
	asked := setOf(names)
	found := map[string][]netip.Addr{}
	for line := range strings.Lines(text) {
		address, name, ok := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		addr, err := netip.ParseAddr(address)
		if !ok || err != nil || addr.Zone() != "" || addr.Is4In6() || !asked[name] {
			return nil, fmt.Errorf("%.80q is not an address of a name that was asked for", line)
		}
		if len(found[name]) == protocol.MaxAddresses {
			return nil, fmt.Errorf("%s has more than %d addresses", name, protocol.MaxAddresses)
		}
		if !slices.Contains(found[name], addr) {
			found[name] = append(found[name], addr)
		}
	}
	return found, nil
}

func setOf(names []string) map[string]bool {
	set := map[string]bool{}
	for _, name := range names {
		set[name] = true
	}
	return set
}

// maxReason bounds a reason, in bytes.
const maxReason = 200

// parseComplaints reads lines "name: reason"; what is none is left out, since it may be anything.
func parseComplaints(text string, names []string) map[string]string {
	asked := setOf(names)
	failed := map[string]string{}
	for line := range strings.Lines(text) {
		name, reason, ok := strings.Cut(strings.TrimSuffix(line, "\n"), ": ")
		if !ok || reason == "" || !asked[name] || failed[name] != "" {
			continue
		}
		failed[name] = strings.Map(printable, reason[:min(len(reason), maxReason)])
	}
	return failed
}

func printable(r rune) rune {
	if r < ' ' || r > '~' {
		return '?'
	}
	return r
}
