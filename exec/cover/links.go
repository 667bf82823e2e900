package cover

import (
	"path"

	"golang.org/x/sys/unix"

	"github.com/sandlock-go/sandlock/exec/kernel"
)

// Links lists the symbolic links that a path leads through, each by its place: the path of its directory, links resolved, and
// its name. Who may write there decides where the path leads, which is told too. What lies behind a missing element is not there
// to be listed.
func Links(r kernel.Root, name string) (links []string, real string, err error) {
	v, err := newView(r)
	if err != nil {
		return nil, "", err
	}
	defer v.close()
	to, links, err := v.trace(path.Clean(name))
	return links, join(to.path, to.rest...), err
}

// pinLinks keeps those links in their places that lie beneath a write grant. Replaced, a link would have a protected path
// mean another file at once, and a denied one in the next run, when what it led to is open.
func (p *planner) pinLinks(rule Rule, name string) {
	_, links, _ := p.view.trace(name)
	for _, link := range links {
		if _, ok := p.grants.writable(link); ok {
			p.add(rule, link, file{mode: unix.S_IFLNK}, Pinned, true)
		}
	}
}
