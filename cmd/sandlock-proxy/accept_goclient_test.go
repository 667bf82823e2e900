package main_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/sandlock-go/sandlock/exec/exectest"
)

// goClientArg makes this test program a client, to be run in a sandbox.
const goClientArg = "go-client"

// patience bounds what a client waits for.
const patience = time.Minute

var goProgram struct {
	once sync.Once
	dir  string
	err  error
}

// goClientDir is the folder of the program that [place.goClient] runs, alone in it: policies must grant to read it. It is the
// test program, where ordinary users may execute it.
func goClientDir(t *testing.T) string {
	t.Helper()
	tools := filepath.Dir(filepath.Dir(exectest.Executor(t))) // removed at the end of all tests
	goProgram.once.Do(func() {
		goProgram.dir = filepath.Join(tools, "bin-client")
		goProgram.err = copySelf(goProgram.dir)
	})
	if goProgram.err != nil {
		t.Fatal(goProgram.err)
	}
	return goProgram.dir
}

func copySelf(dir string) error {
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	in, err := os.Open("/proc/self/exe")
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(filepath.Join(dir, "client"), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o755)
	if err != nil {
		return err
	}
	if _, err := io.Copy(out, in); err != nil {
		return err
	}
	return out.Close()
}

// goClient runs one of the clients below in the sandbox.
func (p *place) goClient(policy string, args ...string) string {
	p.t.Helper()
	r := exectest.Run(p.t, p.Opts(policy, append([]string{goClientDir(p.t) + "/client", goClientArg}, args...)...))
	if r.Code != 0 {
		p.t.Errorf("the client: exit %d\nstdout: %s\nstderr: %s", r.Code, r.Stdout, r.Stderr)
	}
	return r.Stdout
}

var goClients = map[string]func(args []string) error{
	"get": clientGet, "frames": clientFrames, "grpc": clientGRPC, "names": clientNames, "download": clientDownload, "upload": clientUpload,
}

func goClient(args []string) int {
	if err := goClients[args[0]](args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "client:", err)
		return 1
	}
	return 0
}

// clientGet fetches with net/http, by HTTP/2 where the server speaks it: URL…
func clientGet(urls []string) error {
	client := &http.Client{Timeout: patience}
	for _, url := range urls {
		r, err := client.Get(url)
		if err != nil {
			return err
		}
		text, err := io.ReadAll(r.Body)
		if err != nil {
			return err
		}
		r.Body.Close()
		fmt.Println(r.Proto, r.StatusCode, strings.TrimSpace(string(text)))
	}
	return nil
}

// frames are requests on one connection of HTTP/2.
type frames struct {
	Port, SNI string
	Requests  [][][2]string // fields, in their order
}

// clientFrames speaks HTTP/2 frame by frame: the frames, as JSON. It prints a line for each request.
func clientFrames(args []string) error {
	var f frames
	if err := json.Unmarshal([]byte(args[0]), &f); err != nil {
		return err
	}
	conn, err := tls.Dial("tcp", net.JoinHostPort("127.0.0.1", f.Port), &tls.Config{ServerName: f.SNI, NextProtos: []string{"h2"}})
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	if _, err := io.WriteString(conn, http2.ClientPreface); err != nil {
		return err
	}
	framer := http2.NewFramer(conn, conn)
	framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	if err := framer.WriteSettings(); err != nil {
		return err
	}
	for i, fields := range f.Requests {
		stream := uint32(2*i + 1)
		var block bytes.Buffer
		encoder := hpack.NewEncoder(&block)
		for _, field := range fields {
			if err := encoder.WriteField(hpack.HeaderField{Name: field[0], Value: field[1]}); err != nil {
				return err
			}
		}
		if err := framer.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: block.Bytes(), EndHeaders: true, EndStream: true}); err != nil {
			return err
		}
		said, err := answered(framer, stream)
		if err != nil {
			said = "connection: " + err.Error()
		}
		fmt.Println(said)
		if err != nil {
			return nil
		}
	}
	return nil
}

// answered reads until a stream has its answer.
func answered(framer *http2.Framer, stream uint32) (string, error) {
	for {
		f, err := framer.ReadFrame()
		if err != nil {
			return "", err
		}
		switch f := f.(type) {
		case *http2.SettingsFrame:
			if !f.IsAck() {
				if err := framer.WriteSettingsAck(); err != nil {
					return "", err
				}
			}
		case *http2.MetaHeadersFrame:
			if f.StreamID == stream {
				return f.PseudoValue("status"), nil
			}
		case *http2.RSTStreamFrame:
			if f.StreamID == stream {
				return "stream: " + f.ErrCode.String(), nil
			}
		case *http2.GoAwayFrame:
			return "connection: " + f.ErrCode.String(), nil
		}
	}
}

// clientNames makes TLS connections to as many servers' names: PORT COUNT.
func clientNames(args []string) error {
	count, err := strconv.Atoi(args[1])
	if err != nil {
		return err
	}
	var group sync.WaitGroup
	var mu sync.Mutex
	outcomes := map[string]int{}
	work := make(chan int)
	for range 16 {
		group.Go(func() {
			for i := range work {
				said := "ok"
				name := fmt.Sprintf("host%d.names.test", i)
				conn, err := tls.Dial("tcp", "127.0.0.1:"+args[0], &tls.Config{InsecureSkipVerify: true, ServerName: name, CurvePreferences: []tls.CurveID{tls.X25519}})
				if err != nil {
					said = err.Error()
				} else {
					if err := conn.ConnectionState().PeerCertificates[0].VerifyHostname(name); err != nil {
						said = err.Error()
					}
					conn.NetConn().Close()
				}
				mu.Lock()
				outcomes[said]++
				mu.Unlock()
			}
		})
	}
	for i := range count {
		work <- i
	}
	close(work)
	group.Wait()
	fmt.Println(outcomes)
	return nil
}

// clientDownload reads an answer and prints its length: URL.
func clientDownload(args []string) error {
	r, err := http.Get(args[0])
	if err != nil {
		return err
	}
	defer r.Body.Close()
	n, err := io.Copy(io.Discard, r.Body)
	fmt.Println(r.StatusCode, n)
	return err
}

// zeros are a body without end.
type zeros struct{}

func (zeros) Read(b []byte) (int, error) { return len(b), nil }

// clientUpload sends a body, and prints the answer: URL BYTES.
func clientUpload(args []string) error {
	n, err := strconv.ParseInt(args[1], 10, 64)
	if err != nil {
		return err
	}
	q, err := http.NewRequestWithContext(context.Background(), http.MethodPost, args[0], io.LimitReader(zeros{}, n))
	if err != nil {
		return err
	}
	q.ContentLength = n
	r, err := (&http.Client{Transport: &http.Transport{WriteBufferSize: 256 << 10}}).Do(q)
	if err != nil {
		return err
	}
	defer r.Body.Close()
	text, err := io.ReadAll(r.Body)
	fmt.Println(r.StatusCode, string(text))
	return err
}

func pipe(t *testing.T) (r, w *os.File) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close(); w.Close() })
	return r, w
}
