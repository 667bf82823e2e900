// Command web is both ends of the benchmark of HTTP: the server, and the client that loads it, which may run in a sandbox.
//
//	web certify DIR                        makes ca.pem, bundle.pem (the same), cert.pem and key.pem
//	web serve DIR HTTP HTTPS               serves at two addresses, the second with HTTP/2 for who wants it
//	web requests [flags]                   small requests, one after the other on each connection: rate, p50 and p99
//	web body [-upload] [flags]             one large body: bytes/s
//	web idle [flags]                       connections that do nothing until standard input ends
//
// Both ends are as cheap as they can be, so that most of what is measured is what stands between them: HTTP/1 by hand,
// TLS by crypto/tls, and only HTTP/2 by net/http.
//
// Read next: serve.go, load.go, certify.go.
package main

import (
	"flag"
	"fmt"
	"os"
	"time"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "web:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) == 0 {
		return fmt.Errorf("want certify, serve, requests, body or idle")
	}
	switch args[0] {
	case "certify":
		if len(args) != 2 {
			return fmt.Errorf("usage: web certify DIR")
		}
		return certify(args[1])
	case "serve":
		if len(args) != 4 {
			return fmt.Errorf("usage: web serve DIR HTTP HTTPS")
		}
		stop, err := serve(args[1], args[2], args[3])
		if err != nil {
			return err
		}
		defer stop()
		fmt.Println("ready")
		_, err = os.Stdin.Read(make([]byte, 1))
		return ignoreEOF(err)
	}
	flags := flag.NewFlagSet(args[0], flag.ContinueOnError)
	var t target
	flags.StringVar(&t.scheme, "scheme", "http", "http, https, or h2: https with HTTP/2")
	flags.StringVar(&t.at, "at", "", "address to connect to")
	flags.StringVar(&t.host, "host", name, "what the Host header says")
	flags.StringVar(&t.bundle, "bundle", "", "file of certificates that are trusted")
	connections := flags.Int("connections", 1, "how many (streams with HTTP/2)")
	length := flags.Duration("for", time.Second, "how long to measure")
	size := flags.Int64("size", 1<<30, "bytes of the body")
	upload := flags.Bool("upload", false, "send the body instead of getting it")
	if err := flags.Parse(args[1:]); err != nil {
		return err
	}
	switch args[0] {
	case "requests":
		r, err := requests(t, *connections, *length)
		if err != nil {
			return err
		}
		fmt.Printf("value %f %d %d\n", r.rate, r.p50.Nanoseconds(), r.p99.Nanoseconds())
	case "body":
		rate, err := transfer(t, *size, *upload)
		if err != nil {
			return err
		}
		fmt.Printf("value %f\n", rate)
	case "idle":
		done, err := idle(t, *connections)
		if err != nil {
			return err
		}
		defer done()
		fmt.Println("ready")
		_, err = os.Stdin.Read(make([]byte, 1))
		return ignoreEOF(err)
	default:
		return fmt.Errorf("unknown command %q", args[0])
	}
	return nil
}
