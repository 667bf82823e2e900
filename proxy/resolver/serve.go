package resolver

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"time"

	"github.com/sandlock-go/sandlock/proxy/protocol"
)

const (
	maxQueries     = 64   // that are being answered at the same time; more by UDP are dropped, more by TCP wait
	maxConnections = 32   // of a listener
	maxQuery       = 1232 // bytes; a query is one name
	maxMessages    = 128  // on one connection
	idle           = 10 * time.Second
)

// serve answers on both sockets, in the background.
func (l listener) serve(a *answerer, c *control) {
	turn := make(chan struct{}, maxQueries)
	go serveUDP(l.udp, a, c, turn)
	go serveTCP(l.tcp, a, c, turn)
}

func serveUDP(conn *net.UDPConn, a *answerer, c *control, turn chan struct{}) {
	var b [maxQuery + 1]byte
	for {
		n, from, err := conn.ReadFromUDPAddrPort(b[:])
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return
			}
			continue // an ICMP error of an earlier answer
		}
		from = plain(from)
		if n > maxQuery || !c.mayAsk(protocol.UDP, from) {
			continue
		}
		query := append([]byte(nil), b[:n]...)
		select {
		case turn <- struct{}{}:
		default:
			continue // whoever asks asks again
		}
		go func() {
			defer func() { <-turn }()
			if answer := a.answer(query, true); answer != nil {
				_, _ = conn.WriteToUDPAddrPort(answer, from)
			}
		}()
	}
}

func plain(a netip.AddrPort) netip.AddrPort { return netip.AddrPortFrom(a.Addr().Unmap(), a.Port()) }

func serveTCP(l *net.TCPListener, a *answerer, c *control, turn chan struct{}) {
	open := make(chan struct{}, maxConnections)
	for {
		conn, err := l.AcceptTCP()
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return
			}
			time.Sleep(10 * time.Millisecond) // no descriptors: some will be closed
			continue
		}
		if !c.mayAsk(protocol.TCP, plain(address(conn.RemoteAddr()))) {
			conn.Close()
			continue
		}
		select {
		case open <- struct{}{}:
			go func() {
				defer func() { <-open }()
				converse(conn, a, turn)
			}()
		default:
			conn.Close()
		}
	}
}

// converse answers the queries of one connection, one after the other (RFC 7766 §6.2.1.1 allows more, and needs none).
func converse(conn net.Conn, a *answerer, turn chan struct{}) {
	defer conn.Close()
	for range maxMessages {
		if err := conn.SetDeadline(time.Now().Add(idle)); err != nil {
			return
		}
		var size [2]byte
		if _, err := io.ReadFull(conn, size[:]); err != nil {
			return
		}
		n := binary.BigEndian.Uint16(size[:])
		if n > maxQuery {
			return
		}
		query := make([]byte, n)
		if _, err := io.ReadFull(conn, query); err != nil {
			return
		}
		turn <- struct{}{}
		answer := a.answer(query, false)
		<-turn
		if answer == nil {
			return
		}
		_ = conn.SetDeadline(time.Now().Add(idle))
		if _, err := conn.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(answer))), answer...)); err != nil {
			return
		}
	}
}
