package credential

import (
	"errors"
	"fmt"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/sandlock-go/sandlock/proxy/protocol"
)

// errClosed is a secret that is no longer there, or never was.
var errClosed = errors.New("the secret is gone")

// Store is where secrets are, by name. It is for concurrent use, and prints as "[secret]".
type Store struct {
	opaque
	mu      sync.Mutex
	secrets map[string]Secret
	all     []*memory
	closed  bool
}

// NewStore returns an empty store.
func NewStore() *Store { return &Store{secrets: map[string]Secret{}} }

// Put keeps a secret under a name, and clears the caller's copy, whatever comes of it.
func (s *Store) Put(name string, secret []byte) error {
	defer clear(secret)
	if len(secret) == 0 || len(secret) > protocol.MaxSecret {
		return fmt.Errorf("credential %.80q: has %d bytes, not from 1 to %d", name, len(secret), protocol.MaxSecret)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.secrets[name]; ok {
		return fmt.Errorf("credential %.80q: is there already", name)
	}
	m, err := s.keep(secret)
	if err != nil {
		return fmt.Errorf("credential %.80q: %w", name, err)
	}
	s.secrets[name] = Secret{held: m}
	return nil
}

// keep copies bytes to memory that ends with the store.
func (s *Store) keep(b []byte) (*memory, error) {
	if s.closed {
		return nil, errClosed
	}
	m, err := newMemory(b)
	if err == nil {
		s.all = append(s.all, m)
	}
	return m, err
}

// Get returns a secret.
func (s *Store) Get(name string) (Secret, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	secret, ok := s.secrets[name]
	return secret, ok
}

// Close clears all secrets. Secrets that were handed out are of no use any more.
func (s *Store) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var errs []error
	for _, m := range s.all {
		errs = append(errs, m.close())
	}
	s.secrets, s.all, s.closed = nil, nil, true
	return errors.Join(errs...)
}

// Secret is one that a store keeps. It prints as "[secret]".
type Secret struct {
	opaque
	held *memory
}

// use calls f with the secret, which is not to be kept.
func (s Secret) use(f func(b []byte) error) error {
	if s.held == nil {
		return errClosed
	}
	return s.held.use(f)
}

// opaque prints as itself whatever it is embedded in.
type opaque struct{}

const shown = "[secret]"

func (opaque) String() string { return shown }

func (opaque) GoString() string { return shown }

// Format is for every verb, those for bytes and pointers included.
func (opaque) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte(shown)) }

// MarshalText is for encoding/json, log/slog and others.
func (opaque) MarshalText() ([]byte, error) { return []byte(shown), nil }

// memory is outside Go's heap, so that the garbage collector makes no copies of it; no core dump has it, and it is not
// swapped if the limit on locked memory allows that.
type memory struct {
	mu   sync.RWMutex
	area func() []byte // nil once it is closed; a function, since fmt prints what a field that is not exported points to
}

func newMemory(b []byte) (*memory, error) {
	area, err := unix.Mmap(-1, 0, len(b), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return nil, fmt.Errorf("map memory: %w", err)
	}
	if err := unix.Madvise(area, unix.MADV_DONTDUMP); err != nil {
		_ = unix.Munmap(area)
		return nil, fmt.Errorf("keep memory out of core dumps: %w", err)
	}
	_ = unix.Mlock(area)
	copy(area, b)
	return &memory{area: func() []byte { return area }}, nil
}

func (m *memory) use(f func(b []byte) error) error {
	m.mu.RLock()
	defer m.mu.RUnlock()
	if m.area == nil {
		return errClosed
	}
	return f(m.area())
}

func (m *memory) close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.area == nil {
		return nil
	}
	area := m.area()
	m.area = nil
	clear(area)
	return unix.Munmap(area)
}
