// Command goclient talks to a server as Go programs do: for tests of what a Go program in a sandbox can reach. It must be
// built without C.
package main

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"time"
)

const patience = 20 * time.Second

func main() {
	text, err := run(os.Args[1:])
	if err != nil {
		fmt.Fprintln(os.Stderr, "goclient:", err)
		os.Exit(1)
	}
	fmt.Println(text)
}

// run fetches a page, or sends a datagram and waits for its answer.
func run(args []string) (string, error) {
	if len(args) != 2 {
		return "", fmt.Errorf("usage: goclient http URL | dial|listen ADDRESS")
	}
	switch args[0] {
	case "http":
		client := http.Client{Timeout: patience}
		r, err := client.Get(args[1])
		if err != nil {
			return "", err
		}
		defer r.Body.Close()
		text, err := io.ReadAll(r.Body)
		return string(text), err
	case "dial":
		conn, err := net.Dial("udp", args[1])
		if err != nil {
			return "", err
		}
		defer conn.Close()
		return exchange(conn, conn.Write)
	case "listen":
		to, err := net.ResolveUDPAddr("udp", args[1])
		if err != nil {
			return "", err
		}
		conn, err := net.ListenUDP("udp4", nil)
		if err != nil {
			return "", err
		}
		defer conn.Close()
		return exchange(conn, func(b []byte) (int, error) { return conn.WriteTo(b, to) })
	}
	return "", fmt.Errorf("unknown command %s", args[0])
}

func exchange(conn net.Conn, send func([]byte) (int, error)) (string, error) {
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return "", err
	}
	if _, err := send([]byte("hello")); err != nil {
		return "", err
	}
	buf := make([]byte, 64)
	n, err := conn.Read(buf)
	return string(buf[:n]), err
}
