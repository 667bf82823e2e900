package sshsig

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sandlock-go/sandlock/ir/seal"
)

// The signatures in testdata were made by OpenSSH 9.2 over this artifact: ssh-keygen -Y sign -n sandlock-policy.
var unsigned = seal.Seal([]byte("policy"))

var now = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func testdata(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// attached returns the test artifact with signatures added as they are, good or bad.
func attached(t testing.TB, blobs ...[]byte) *seal.Artifact {
	t.Helper()
	file := unsigned
	for _, blob := range blobs {
		a, err := seal.Open(file)
		if err != nil {
			t.Fatal(err)
		}
		if file, err = a.Append(blob); err != nil {
			t.Fatal(err)
		}
	}
	a, err := seal.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func binarySig(t testing.TB, name string) []byte {
	t.Helper()
	blob, err := Dearmor(testdata(t, name+".sig"))
	if err != nil {
		t.Fatal(err)
	}
	return blob
}

func allow(t testing.TB, lines ...string) *AllowedSigners {
	t.Helper()
	l, err := ParseAllowedSigners("signers", []byte(strings.Join(lines, "\n")))
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// allowKey returns a list with one of testdata's keys.
func allowKey(t testing.TB, principals, name string) *AllowedSigners {
	t.Helper()
	return allow(t, principals+" "+string(testdata(t, name+".pub")))
}

func TestVerifyWhatSSHKeygenSigned(t *testing.T) {
	for _, name := range []string{"ed25519", "ed25519-sha256", "p256", "p384", "p521", "rsa2048", "rsa4096"} {
		key, _, _ := strings.Cut(name, "-")
		armored := testdata(t, name+".sig")
		file, err := Attach(unsigned, armored)
		if err != nil {
			t.Errorf("%s: attach: %v", name, err)
			continue
		}
		a, err := seal.Open(file)
		if err != nil {
			t.Fatal(err)
		}
		signer, err := Verify(a, allowKey(t, "ann@example.com", key), now)
		if err != nil || signer.Principals != "ann@example.com" || signer.Place != "signers:1" {
			t.Errorf("%s: got %+v, %v, want ann@example.com of signers:1", name, signer, err)
		}
		if got := Armor(binarySig(t, name)); !bytes.Equal(got, armored) {
			t.Errorf("%s: armor: got\n%s\nwant\n%s", name, got, armored)
		}
		other := "p256"
		if key == other {
			other = "p384"
		}
		if s, err := Verify(a, allowKey(t, "bob", other), now); s != nil || !errors.Is(err, ErrNotAllowed) {
			t.Errorf("%s: key not listed: got %v, %v, want %q", name, s, err, ErrNotAllowed)
		}
		changed, err := seal.Open(seal.Seal([]byte("Policy")))
		if err != nil {
			t.Fatal(err)
		}
		changed.Signatures = a.Signatures
		if s, err := Verify(changed, allowKey(t, "ann", key), now); s != nil || !errors.Is(err, ErrNotAllowed) || !strings.Contains(err.Error(), errSignature.Error()) {
			t.Errorf("%s: another artifact: got %v, %v, want %q", name, s, err, errSignature)
		}
	}
}

// replace rebuilds a signature with one field changed.
func replace(t testing.TB, name string, edit func(f map[string]*[]byte)) []byte {
	t.Helper()
	r := &reader{rest: binarySig(t, name)[len(magic):]}
	v := binary.BigEndian.AppendUint32(nil, r.uint32())
	key, namespace, reserved, hash := r.str(), r.str(), r.str(), r.str()
	in := &reader{rest: r.str()}
	format, blob := in.str(), in.str()
	var rest, outer []byte
	if err := errors.Join(r.end(), in.end()); err != nil {
		t.Fatal(err)
	}
	edit(map[string]*[]byte{"version": &v, "key": &key, "namespace": &namespace, "reserved": &reserved, "hash": &hash, "format": &format, "blob": &blob, "rest": &rest, "outer": &outer})
	b := append([]byte(magic), v...)
	for _, s := range [][]byte{key, namespace, reserved, hash} {
		b = appendString(b, s)
	}
	return append(appendString(b, append(appendString(appendString(nil, format), blob), rest...)), outer...)
}

func TestVerifyRefuses(t *testing.T) {
	set := func(field, value string) func(map[string]*[]byte) {
		return func(f map[string]*[]byte) { *f[field] = []byte(value) }
	}
	rsaKey := func(e, n *big.Int) string {
		b := appendString(nil, []byte(typeRSA))
		b = appendString(b, mpint(e))
		return string(appendString(b, mpint(n)))
	}
	big2048 := new(big.Int).Add(new(big.Int).Lsh(big.NewInt(1), 2047), big.NewInt(1))
	for _, tc := range []struct {
		name, sig string
		edit      func(f map[string]*[]byte)
		want      string
	}{
		{"another namespace", "ed25519-git", nil, `namespace "git", want "sandlock-policy"`},
		{"namespace renamed", "ed25519-git", set("namespace", Namespace), "does not match the artifact"},
		{"version", "ed25519", set("version", "\x00\x00\x00\x02"), "version 2, this build knows 1"},
		{"reserved", "ed25519", set("reserved", "x"), "reserved field of 1 bytes"},
		{"hash sha1", "ed25519", set("hash", "sha1"), `hash "sha1"`},
		{"hash renamed", "ed25519", set("hash", "sha256"), "does not match the artifact"},
		{"rest", "ed25519", set("rest", "x"), "1 bytes after the end"},
		{"outer rest", "ed25519", set("outer", "xy"), "2 bytes after the end"},
		{"empty blob", "ed25519", set("blob", ""), "does not match the artifact"},
		{"long blob", "ed25519", func(f map[string]*[]byte) { *f["blob"] = append(*f["blob"], 0) }, "does not match the artifact"},
		{"format of another key", "ed25519", set("format", "ecdsa-sha2-nistp256"), "for a key of type ssh-ed25519"},
		{"ecdsa as DER", "p256", set("blob", "\x30\x06\x02\x01\x01\x02\x01\x01"), "signature: string"},
		{"ecdsa zero", "p256", set("blob", "\x00\x00\x00\x00\x00\x00\x00\x00"), "zero, negative or not in its shortest form"},
		{"ecdsa leading zero", "p256", func(f map[string]*[]byte) {
			r := &reader{rest: *f["blob"]}
			first := append([]byte{0}, bytes.TrimLeft(r.str(), "\x00")...)
			if first[1]&0x80 != 0 {
				first = append([]byte{0}, first...)
			}
			*f["blob"] = append(appendString(nil, first), r.rest...)
		}, "not in its shortest form"},
		{"ecdsa other curve", "p256", set("format", "ecdsa-sha2-nistp384"), "for a key of type ecdsa-sha2-nistp256"},
		{"rsa sha-1", "rsa2048", set("format", "ssh-rsa"), `algorithm "ssh-rsa" for an RSA key`},
		{"rsa other hash", "rsa2048", set("format", "rsa-sha2-256"), "does not match the artifact"},
		{"rsa short blob", "rsa2048", func(f map[string]*[]byte) { *f["blob"] = (*f["blob"])[1:] }, "does not match the artifact"},
		{"rsa 1024", "rsa1024", nil, "key of 1024 bits, 2048 to 16384"},
		{"rsa exponent 1", "rsa2048", set("key", rsaKey(big.NewInt(1), big2048)), "exponent"},
		{"rsa exponent 4", "rsa2048", set("key", rsaKey(big.NewInt(4), big2048)), "exponent"},
		{"rsa exponent 2^32+1", "rsa2048", set("key", rsaKey(big.NewInt(1<<32+1), big2048)), "exponent"},
		{"rsa 16385", "rsa2048", set("key", rsaKey(big.NewInt(3), new(big.Int).Lsh(big.NewInt(1), 16384))), "16385 bits"},
		{"no key", "ed25519", set("key", ""), "public key: 4 bytes are missing"},
		{"dsa", "ed25519", set("key", "\x00\x00\x00\x07ssh-dss"), `type "ssh-dss" is not supported`},
		{"key with a rest", "ed25519", func(f map[string]*[]byte) { *f["key"] = append(*f["key"], 0) }, "1 bytes after the end"},
		{"short ed25519 key", "ed25519", set("key", "\x00\x00\x00\x0bssh-ed25519\x00\x00\x00\x01x"), "1 bytes, want 32"},
		{"curve of another type", "p256", func(f map[string]*[]byte) {
			*f["key"] = bytes.Replace(*f["key"], []byte("\x08nistp256"), []byte("\x08nistp384"), 1)
		}, `curve "nistp384", want "nistp256"`},
		{"point not on curve", "p256", func(f map[string]*[]byte) { (*f["key"])[len(*f["key"])-1] ^= 1 }, "public key ecdsa-sha2-nistp256"},
	} {
		edit := tc.edit
		if edit == nil {
			edit = func(map[string]*[]byte) {}
		}
		blob := replace(t, tc.sig, edit)
		key, _, _ := strings.Cut(tc.sig, "-")
		if key == "rsa1024" { // no list can name it
			key = "rsa2048"
		}
		s, err := Verify(attached(t, blob), allowKey(t, "ann", key), now)
		if s != nil || !errors.Is(err, ErrNotAllowed) || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: got %v, %v, want ErrNotAllowed with %q", tc.name, s, err, tc.want)
		}
	}
	if _, err := Verify(attached(t), allowKey(t, "ann", "ed25519"), now); !errors.Is(err, ErrUnsigned) {
		t.Errorf("no signature: got %v, want %q", err, ErrUnsigned)
	}
	if _, err := Verify(attached(t, []byte("junk")), allowKey(t, "ann", "ed25519"), now); err == nil || !strings.Contains(err.Error(), "does not begin with SSHSIG") {
		t.Errorf("junk: got %v, want a refusal", err)
	}
}

func mpint(n *big.Int) []byte {
	b := n.Bytes()
	if b[0]&0x80 != 0 {
		b = append([]byte{0}, b...)
	}
	return b
}

func TestVerifyTakesAnyAllowedSignature(t *testing.T) {
	a := attached(t, []byte("junk"), binarySig(t, "ed25519-git"), binarySig(t, "p384"), binarySig(t, "p256"))
	signer, err := Verify(a, allowKey(t, "ann", "p256"), now)
	if err != nil || signer.Key.Type != typeP256 {
		t.Errorf("last of four: got %v, %v, want the P-256 signer", signer, err)
	}
}

func TestVerifyFollowsTheLine(t *testing.T) {
	pub := strings.TrimSpace(string(testdata(t, "ed25519.pub")))
	a := attached(t, binarySig(t, "ed25519"))
	for _, tc := range []struct{ lines, want string }{
		{"ann " + pub, ""},
		{`ann,bob@*.org namespaces="sandlock-policy" ` + pub, ""},
		{`ann namespaces="git,sandlock-*" ` + pub, ""},
		{`ann namespaces="*,!sandlock-policy" ` + pub, "not allowed for namespace"},
		{`ann namespaces="git" ` + pub, "not allowed for namespace"},
		{`ann namespaces="sandlock" ` + pub, "not allowed for namespace"},
		{`ann valid-after="20260102030405Z" ` + pub, ""},
		{`ann valid-after="20260102030406Z" ` + pub, "valid only after 2026-01-02T03:04:06Z"},
		{`ann valid-before="20260102030405Z" ` + pub, ""},
		{`ann valid-before="202601020304Z" ` + pub, "valid only before 2026-01-02T03:04:00Z"},
		{`ann Valid-After="20250101Z",VALID-BEFORE="20270101Z",namespaces="*" ` + pub, ""},
		{`ann valid-after="20250101",valid-before="20270101" ` + pub, ""},
		{`ann namespaces="git" ` + pub + "\nbob " + pub, ""},
	} {
		_, err := Verify(a, allow(t, tc.lines), now)
		if tc.want == "" && err != nil {
			t.Errorf("%s: got %v, want no error", tc.lines, err)
		}
		if tc.want != "" && (!errors.Is(err, ErrNotAllowed) || !strings.Contains(err.Error(), tc.want)) {
			t.Errorf("%s: got %v, want ErrNotAllowed with %q", tc.lines, err, tc.want)
		}
	}
}

// Whatever bit of a signed artifact changes, nobody has signed it.
func TestFlippedBitNeverVerifies(t *testing.T) {
	for _, name := range []string{"ed25519", "p256", "rsa2048"} {
		file, err := Attach(unsigned, testdata(t, name+".sig"))
		if err != nil {
			t.Fatal(err)
		}
		allowed := allowKey(t, "ann", name)
		for i := range file {
			for _, bit := range []int{0, 3, 7} {
				file[i] ^= 1 << bit
				a, err := seal.Open(file)
				if err == nil {
					_, err = Verify(a, allowed, now)
				}
				if err == nil {
					t.Fatalf("%s: bit %d of byte %d flipped: got no error", name, bit, i)
				}
				file[i] ^= 1 << bit
			}
		}
		a, err := seal.Open(file)
		if err == nil {
			_, err = Verify(a, allowed, now)
		}
		if err != nil {
			t.Fatalf("%s: with every bit back: %v", name, err)
		}
	}
}

func TestAttachRefuses(t *testing.T) {
	once, err := Attach(unsigned, testdata(t, "ed25519.sig"))
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name      string
		file, sig []byte
		want      string
	}{
		{"no artifact", []byte("x"), testdata(t, "ed25519.sig"), "not a sandlock artifact"},
		{"no signature", unsigned, []byte("x"), "does not begin with SSHSIG"},
		{"open armor", unsigned, []byte(armorBegin + "\nAAAA\n"), "armor does not end"},
		{"bad base64", unsigned, []byte(armorBegin + "\nA?\n" + armorEnd), "armor: illegal base64"},
		{"large armor", unsigned, []byte(armorBegin + strings.Repeat("A", 2*seal.MaxSignature) + armorEnd), "at most 16384"},
		{"large", unsigned, append([]byte(magic), make([]byte, seal.MaxSignature)...), "at most 8192"},
		{"other namespace", unsigned, testdata(t, "ed25519-git.sig"), `namespace "git"`},
		{"other artifact", seal.Seal([]byte("other")), testdata(t, "ed25519.sig"), "does not match the artifact"},
		{"twice", once, testdata(t, "ed25519.sig"), "signed this artifact already"},
		{"same key, other hash", once, testdata(t, "ed25519-sha256.sig"), "signed this artifact already"},
	} {
		if file, err := Attach(tc.file, tc.sig); file != nil || err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: got %x, %v, want an error with %q", tc.name, file, err, tc.want)
		}
	}
}

// securityKey signs as a FIDO token does (OpenSSH's PROTOCOL.u2f).
func securityKey(t testing.TB, flags byte) (pub string, armored []byte) {
	t.Helper()
	private := ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))
	blob := appendString(nil, []byte(typeSKEd25519))
	blob = appendString(blob, private.Public().(ed25519.PublicKey))
	blob = appendString(blob, []byte("ssh:"))
	data, err := SignedData(Namespace, "sha512", unsigned)
	if err != nil {
		t.Fatal(err)
	}
	rest := []byte{flags, 0, 0, 0, 7}
	application, sum := sha256.Sum256([]byte("ssh:")), sha256.Sum256(data)
	signature := ed25519.Sign(private, append(append(application[:], rest...), sum[:]...))
	s, err := New(blob, "sha512", typeSKEd25519, signature, rest)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("%s %s", typeSKEd25519, encodeKey(blob)), Armor(s.Marshal())
}

func TestSecurityKey(t *testing.T) {
	pub, sig := securityKey(t, flagUserPresent)
	file, err := Attach(unsigned, sig)
	if err != nil {
		t.Fatal(err)
	}
	a, err := seal.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Verify(a, allow(t, "ann "+pub), now); err != nil {
		t.Errorf("touched: got %v, want no error", err)
	}
	_, sig = securityKey(t, 0)
	if _, err := Attach(unsigned, sig); err == nil || !strings.Contains(err.Error(), "was not touched") {
		t.Errorf("not touched: got %v, want a refusal", err)
	}
}

// ssh-keygen is asked about the same artifact: what we accept, it accepts.
func TestSSHKeygenAgrees(t *testing.T) {
	keygen, err := exec.LookPath("ssh-keygen")
	if err != nil {
		t.Skip("ssh-keygen is not installed")
	}
	pub, sig := securityKey(t, flagUserPresent)
	type signed struct {
		pub string
		sig []byte
	}
	cases := map[string]signed{"sk-ed25519": {pub, sig}}
	for _, name := range []string{"ed25519", "p256", "p384", "p521", "rsa2048"} {
		cases[name] = signed{string(testdata(t, name+".pub")), Armor(binarySig(t, name))}
	}
	for name, tc := range cases {
		dir := t.TempDir()
		signers, sig := filepath.Join(dir, "signers"), filepath.Join(dir, "sig")
		line := `ann namespaces="sandlock-policy,git" ` + tc.pub
		for file, content := range map[string][]byte{signers: []byte(line), sig: tc.sig} {
			if err := os.WriteFile(file, content, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		cmd := exec.Command(keygen, "-Y", "verify", "-n", Namespace, "-f", signers, "-I", "ann", "-s", sig)
		cmd.Stdin = bytes.NewReader(unsigned)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%s: ssh-keygen -Y verify: %v: %s", name, err, out)
		}
		blob, err := Dearmor(tc.sig)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Verify(attached(t, blob), allow(t, line), now); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzSSHSig(f *testing.F) {
	for _, name := range []string{"ed25519", "ed25519-sha256", "ed25519-git", "p256", "p521", "rsa2048", "rsa1024"} {
		f.Add(testdata(f, name+".sig"))
		f.Add(binarySig(f, name))
	}
	_, sk := securityKey(f, flagUserPresent)
	f.Add(sk)
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := Parse(b)
		if err != nil {
			if s != nil {
				t.Fatalf("parse: got a signature with error %v", err)
			}
			return
		}
		blob, err := Dearmor(b)
		if err != nil {
			t.Fatal(err)
		}
		if got := s.Marshal(); !bytes.Equal(got, blob) {
			t.Fatalf("marshal: got %x, want %x", got, blob)
		}
		if again, err := Dearmor(Armor(blob)); err != nil || !bytes.Equal(again, blob) {
			t.Fatalf("armor and back: got %x, %v, want %x", again, err, blob)
		}
		_ = s.verify(unsigned) // must not panic; whether it holds depends on the input
	})
}

func BenchmarkVerify(b *testing.B) {
	for _, name := range []string{"ed25519", "p256", "p521", "rsa4096"} {
		a, allowed := attached(b, binarySig(b, name)), allowKey(b, "ann", name)
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				if _, err := Verify(a, allowed, now); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
