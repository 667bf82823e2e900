package exec

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/sandlock-go/sandlock/exec/kernel"
	"github.com/sandlock-go/sandlock/ir"
	"github.com/sandlock-go/sandlock/proxy/protocol"
)

// withoutSecrets returns an environment without the variables that hold secrets, used or not. What the policy sets itself
// is added later, and stays.
func withoutSecrets(environ []string, h *ir.HTTP) []string {
	holds := func(kv string) bool {
		name, _, _ := strings.Cut(kv, "=")
		return slices.ContainsFunc(h.Credentials, func(c ir.Credential) bool { return c.Kind == ir.CredentialEnv && c.Source == name })
	}
	if len(h.Credentials) == 0 {
		return environ
	}
	return slices.DeleteFunc(slices.Clone(environ), holds)
}

// secrets reads what only the proxy is to know, each once, into a file in memory. This process keeps no copy: not of what
// it has read, and where it is a program of its own, not in its environment.
func (s *sandbox) secrets() (fd int, problems []string) {
	h := &s.program.HTTP
	var all []byte
	defer func() { clear(all[:cap(all)]) }()
	add := func(name string, origin ir.OriginRef, field string, value []byte, err error) {
		defer clear(value[:cap(value)])
		if err != nil {
			problems = append(problems, s.fieldError(origin, field, err).Error())
			return
		}
		grown := protocol.AppendSecret(slices.Grow(slices.Clone(all), len(value)+len(name)+8), name, value)
		clear(all[:cap(all)])
		all = grown
	}
	for _, f := range []struct {
		name, field string
		path        ir.Template
		origin      ir.OriginRef
	}{
		{protocol.SecretCA, "http.ca", h.CA, h.CAOrigin},
		{protocol.SecretKey, "http.key", h.Key, h.CAOrigin},
		{protocol.SecretUpstreamCA, "http.upstream_ca", h.UpstreamCA, h.Origin},
	} {
		if f.path != "" {
			value, err := s.readFile(f.path, maxBundle)
			add(f.name, f.origin, f.field, value, err)
		}
	}
	for i := range h.Credentials {
		c := &h.Credentials[i]
		if !slices.ContainsFunc(h.Auth, func(a ir.HTTPAuth) bool { return a.Credential == c.Name }) {
			continue
		}
		value, err := s.credential(c)
		add(c.Name, c.Origin, "http.credentials."+c.Name, value, err)
	}
	if !s.shared {
		var names []string
		for i := range h.Credentials {
			if c := &h.Credentials[i]; c.Kind == ir.CredentialEnv {
				names = append(names, c.Source)
			}
		}
		if err := kernel.WipeEnvironment(names); err != nil {
			problems = append(problems, fmt.Sprintf("http.credentials: take them out of the executor's environment: %v", err))
		}
	}
	if len(problems) > 0 {
		return -1, problems
	}
	fd, err := kernel.SealedFile("secrets", all)
	if err != nil {
		return -1, []string{fmt.Sprintf("http: %v", err)}
	}
	return fd, nil
}

// fieldError says which field of the policy an error is about, once.
func (s *sandbox) fieldError(origin ir.OriginRef, field string, err error) error {
	if !strings.HasPrefix(rulePath(s.program, origin), field) {
		err = fmt.Errorf("%s: %w", field, err)
	}
	return s.ruleError(origin, err)
}

// credential reads a secret from its source.
func (s *sandbox) credential(c *ir.Credential) (value []byte, err error) {
	switch c.Kind {
	case ir.CredentialEnv:
		prefix := c.Source + "="
		i := slices.IndexFunc(s.options.Environ, func(kv string) bool { return strings.HasPrefix(kv, prefix) })
		if i < 0 {
			return nil, fmt.Errorf("the variable %s is not set", c.Source)
		}
		value = []byte(s.options.Environ[i][len(prefix):])
	case ir.CredentialFile:
		value, err = s.readFile(c.Source, protocol.MaxSecretFile)
	case ir.CredentialFD:
		value, err = readDescriptor(c.Source, protocol.MaxSecretFile)
	}
	if err != nil {
		return nil, err
	}
	trimmed, err := protocol.Trim(value)
	if err != nil {
		clear(value)
		return nil, err
	}
	return trimmed, nil
}

func (s *sandbox) readFile(path ir.Template, most int) ([]byte, error) {
	expanded, err := ir.ExpandPath(path, s.bound.lookup)
	if err != nil {
		return nil, err
	}
	if err := s.placed(expanded); err != nil {
		return nil, err
	}
	return readLimited(expanded, most)
}

// readLimited reads a file of limited size.
func readLimited(path string, most int) ([]byte, error) {
	b, _, err := readLimitedAt(kernel.Root{}, path, most)
	return b, err
}

// readLimitedAt also returns where the file is, links resolved. It is one of the command's view, or of the host.
func readLimitedAt(root kernel.Root, path string, most int) (b []byte, at string, err error) {
	fd, err := root.Open(path, unix.O_RDONLY|unix.O_CLOEXEC)
	if err != nil {
		return nil, "", &os.PathError{Op: "open", Path: path, Err: err}
	}
	f := os.NewFile(uintptr(fd), path)
	defer f.Close()
	if at, err = root.Where(fd); err == nil {
		b, err = readAll(f, most)
	}
	if err != nil {
		err = fmt.Errorf("%s: %w", path, err)
	}
	return b, at, err
}

// errTooLong says how many bytes something may have. A secret's line end is not one of its own.
type errTooLong int

func (e errTooLong) Error() string {
	if int(e) == protocol.MaxSecretFile {
		e = protocol.MaxSecret
	}
	return fmt.Sprintf("has more than %d bytes", int(e))
}

// readAll reads to the end. Buffers that were too small are cleared.
func readAll(r io.Reader, most int) ([]byte, error) {
	b := make([]byte, 0, 4096)
	for {
		if len(b) == cap(b) {
			grown := append(make([]byte, 0, 2*cap(b)), b...)
			clear(b)
			b = grown
		}
		n, err := r.Read(b[len(b):cap(b)])
		b = b[:len(b)+n]
		switch {
		case errors.Is(err, io.EOF):
			return b, nil
		case err != nil:
			return nil, err
		case len(b) > most:
			clear(b)
			return nil, errTooLong(most)
		}
	}
}

// readDescriptor reads a descriptor that this process has inherited, to its end. Standard input goes on to the command,
// which could rewind it if it were a file.
func readDescriptor(number string, most int) ([]byte, error) {
	fd, err := strconv.Atoi(number)
	if err != nil {
		return nil, err
	}
	flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
	if err == nil && flags&unix.FD_CLOEXEC != 0 {
		err = errors.New("it was not inherited") // but is one of the executor's own
	}
	if err == nil && fd == 0 {
		if _, seek := unix.Seek(0, 0, unix.SEEK_CUR); seek == nil {
			err = errors.New("standard input is a file, which the command could read again")
		}
	}
	var own int
	if err == nil {
		own, err = unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 3)
	}
	if err != nil {
		return nil, fmt.Errorf("descriptor %d: %w", fd, err)
	}
	f := os.NewFile(uintptr(own), "descriptor "+number)
	defer f.Close()
	b, err := readAll(f, most)
	if err != nil {
		return nil, fmt.Errorf("descriptor %d: %w", fd, err)
	}
	return b, nil
}
