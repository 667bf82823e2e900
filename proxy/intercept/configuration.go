package intercept

import (
	"errors"
	"fmt"
	"io"

	"golang.org/x/sys/unix"

	"github.com/sandlock-go/sandlock/ir"
	"github.com/sandlock-go/sandlock/proxy/ca"
	"github.com/sandlock-go/sandlock/proxy/credential"
	"github.com/sandlock-go/sandlock/proxy/protocol"
)

// maxProgram bounds the program, in bytes.
const maxProgram = 64 << 20

// configuration is what the executor says at first.
type configuration struct {
	names   []string
	begin   protocol.ProxyBegin
	program *ir.Program
	file    []byte // of the secrets, which lie in it
	secrets map[string][]byte
}

func (c *control) configuration() (*configuration, error) {
	conf := &configuration{secrets: map[string][]byte{}}
	for {
		m, files, err := c.receive()
		if err != nil {
			return nil, fmt.Errorf("read the configuration: %w", err)
		}
		switch m := m.(type) {
		case protocol.Names:
			conf.names = append(conf.names, m...)
		case protocol.ProxyBegin:
			conf.begin = m
			return conf, conf.read(files)
		default:
			return nil, fmt.Errorf("message %T before the first connection", m)
		}
	}
}

// read takes the program and the secrets out of their files.
func (c *configuration) read(files []int) error {
	defer closeAll(files)
	if len(files) != 2 {
		return fmt.Errorf("the first message has %d files, want 2", len(files))
	}
	encoded, err := readFile(files[0], maxProgram)
	if err != nil {
		return fmt.Errorf("read the program: %w", err)
	}
	if c.program, err = ir.Decode(encoded); err != nil {
		return fmt.Errorf("read the program: %w", err)
	}
	if c.file, err = readFile(files[1], protocol.MaxSecrets); err != nil {
		return fmt.Errorf("read the secrets: %w", err)
	}
	list, err := protocol.Secrets(c.file)
	if err != nil {
		return fmt.Errorf("read the secrets: %w", err)
	}
	for _, s := range list {
		c.secrets[s.Name] = s.Value
	}
	return nil
}

// readFile reads all of a file, wherever its offset is, into one buffer.
func readFile(fd, most int) ([]byte, error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, err
	}
	if st.Size > int64(most) {
		return nil, fmt.Errorf("it has %d bytes, more than %d", st.Size, most)
	}
	b := make([]byte, st.Size)
	for n := 0; n < len(b); {
		k, err := unix.Pread(fd, b[n:], int64(n))
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err == nil && k == 0 {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			return nil, err
		}
		n += k
	}
	return b, nil
}

// clear makes an end of the secrets, which are elsewhere by now.
func (c *configuration) clear() { clear(c.file) }

// secret is a credential as a rule has it added.
type secret struct {
	way  credential.Way
	held credential.Secret
	echo *credential.Echo
}

var kinds = map[ir.AuthScheme]credential.Kind{
	ir.AuthBearer: credential.Bearer, ir.AuthBasic: credential.Basic, ir.AuthHeader: credential.Header, ir.AuthQuery: credential.Query,
}

// keep moves the credentials that rules add to a store.
func (c *configuration) keep(h *ir.HTTP) (*credential.Store, map[*ir.HTTPAuth]secret, error) {
	store, secrets := credential.NewStore(), map[*ir.HTTPAuth]secret{}
	for i := range h.Auth {
		a := &h.Auth[i]
		held, ok := store.Get(a.Credential)
		if !ok {
			value, ok := c.secrets[a.Credential]
			if !ok {
				return nil, nil, fmt.Errorf("credential %q: no secret", a.Credential)
			}
			if err := store.Put(a.Credential, value); err != nil {
				return nil, nil, err
			}
			held, _ = store.Get(a.Credential)
		}
		way := credential.Way{Kind: kinds[a.Scheme], Name: a.Name, AddOnly: a.AddOnly}
		echo, err := store.Echo(way, a.Credential)
		if err != nil {
			return nil, nil, err
		}
		secrets[a] = secret{way, held, echo}
	}
	return store, secrets, nil
}

func (c *configuration) authority(h *ir.HTTP) (*ca.Authority, error) {
	switch h.Authority {
	case ir.AuthorityNone:
		return nil, nil
	case ir.AuthorityOwn:
		return ca.Load(c.secrets[protocol.SecretCA], c.secrets[protocol.SecretKey])
	}
	names, addresses := h.Hosts()
	return ca.Ephemeral(ca.Config{Names: names, Addresses: addresses, Any: h.AnyHost()})
}
