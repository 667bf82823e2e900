package intercept

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"syscall"

	"github.com/sandlock-go/sandlock/proxy/protocol"
)

// proxyName is what answers of our own are known by, in Proxy-Status (RFC 9209).
const proxyName = "sandlock"

// What answers are about. Programs may compare them.
const (
	errorDenied   = "blocked by sandlock HTTP policy"
	errorRequest  = "malformed request"
	errorUpstream = "sandlock has no answer of the server"
)

// answer is the body of an answer of our own. Its fields are stable.
type answer struct {
	Error  string `json:"error"`
	Status int    `json:"status"`
	Method string `json:"method"`
	Host   string `json:"host"`
	Path   string `json:"path"`
	Rule   string `json:"rule"`
	Reason string `json:"reason"`
}

// refuse answers in the place of the server.
func (x *exchange) refuse(bad *refusal) {
	m := &x.record
	m.Denied = bad.denied
	m.Reason = cmp.Or(bad.told, bad.reason)
	a := answer{Error: errorUpstream, Status: bad.status, Reason: bad.reason}
	switch bad.kind {
	case kindDenied:
		a.Error = errorDenied
	case kindMalformed:
		a.Error = errorRequest
		if bad.status == http.StatusForbidden {
			a.Error = errorDenied
		}
	}
	if bad.rule != nil {
		a.Rule = bad.rule.Describe()
	}
	if rule := cmp.Or(bad.rule, bad.closest); rule != nil {
		m.Rule, m.Origin = short(rule.Describe(), protocol.MaxWords), uint32(rule.Origin)
	}
	if !x.unknown {
		a.Method, a.Host, a.Path = x.request.Method, cmp.Or(x.authority, x.request.Host), x.path
	}
	h := x.Header()
	clear(h)
	h.Set("Proxy-Status", proxyName+"; error="+bad.kind)
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Vary", "Accept")
	if bad.close || x.upgraded {
		h.Set("Connection", "close")
	}
	if bad.status == http.StatusMethodNotAllowed {
		h.Set("Allow", "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS")
	}
	text := a.text()
	if takesJSON(x.request.Header["Accept"]) {
		h.Set("Content-Type", "application/json")
		b, _ := json.Marshal(a) // of strings and a number
		text = string(b) + "\n"
	} else {
		h.Set("Content-Type", "text/plain; charset=utf-8")
	}
	h.Set("Content-Length", strconv.Itoa(len(text)))
	x.WriteHeader(bad.status)
	if x.request.Method != http.MethodHead {
		_, _ = io.WriteString(x, text)
	}
}

func (a *answer) text() string {
	about := strings.TrimSpace(a.Method + " " + a.Host + a.Path)
	if a.Error != errorDenied {
		return fmt.Sprintf("%s: %s: %s\n", a.Error, about, a.Reason)
	}
	rule := ""
	if a.Rule != "" {
		rule = " (" + a.Rule + ")"
	}
	return fmt.Sprintf("Blocked by sandlock HTTP ACL policy: %s: %s%s\n", about, a.Reason, rule)
}

// takesJSON reports whether a client that sends these Accept headers wants JSON rather than text.
func takesJSON(accept []string) bool {
	var jsonQ, textQ float64
	named := false
	for _, value := range accept {
		for item := range strings.SplitSeq(value, ",") {
			kind, params, err := mime.ParseMediaType(item)
			if err != nil {
				continue
			}
			q, err := strconv.ParseFloat(cmp.Or(params["q"], "1"), 64)
			if err != nil || q <= 0 {
				continue
			}
			switch {
			case kind == "application/json" || strings.HasSuffix(kind, "+json"):
				named, jsonQ = true, max(jsonQ, q)
			case kind == "application/*" || kind == "*/*":
				jsonQ = max(jsonQ, q)
			case kind == "text/plain" || kind == "text/html" || kind == "text/*":
				textQ = max(textQ, q)
			}
		}
	}
	return jsonQ > 0 && (named && jsonQ >= textQ || textQ == 0)
}

// failed answers for a server that did not.
func (x *exchange) failed(err error) {
	var body *http.MaxBytesError
	switch {
	case x.s.malformed.Load():
		bad := malformed(http.StatusBadRequest, "malformed request body")
		bad.close = true
		x.refuse(bad)
	case errors.As(x.body.failure(), &body):
		x.refuse(tooLarge(uint64(body.Limit)))
	case x.request.Context().Err() != nil:
		x.record.Reason = "the client went away"
		panic(http.ErrAbortHandler)
	default:
		bad := x.why(err)
		bad.close = x.body.failure() != nil
		x.refuse(bad)
	}
}

// why says what an error on the way to the server or back is.
func (x *exchange) why(err error) *refusal {
	var credential errCredential
	var certificate *tls.CertificateVerificationError
	var unknown x509.UnknownAuthorityError
	var record tls.RecordHeaderError
	var alert tls.AlertError
	var errno syscall.Errno
	var timeout net.Error
	bad := func(status int, kind, reason string) *refusal {
		return &refusal{status: status, kind: kind, reason: reason}
	}
	switch {
	case errors.As(err, &credential):
		return bad(http.StatusBadGateway, "proxy_internal_error", credential.Error())
	case errors.Is(err, errUpgrade):
		return bad(http.StatusBadGateway, "http_upgrade_failed", errUpgrade.Error())
	case errors.As(err, &certificate):
		return bad(http.StatusBadGateway, "tls_certificate_error", "the server's certificate: "+certificate.Err.Error())
	case errors.As(err, &unknown):
		return bad(http.StatusBadGateway, "tls_certificate_error", "the server's certificate: "+unknown.Error())
	case errors.As(err, &alert):
		return bad(http.StatusBadGateway, "tls_alert_received", "TLS with the server: "+alert.Error())
	case errors.As(err, &record):
		return bad(http.StatusBadGateway, "tls_protocol_error", "the server does not speak TLS")
	case errors.As(err, &errno):
		return x.unreachable(errno)
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded),
		errors.As(err, &timeout) && timeout.Timeout():
		return bad(http.StatusGatewayTimeout, "connection_timeout", "the server did not answer in time")
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return bad(http.StatusBadGateway, "connection_terminated", "the server closed the connection")
	}
	return bad(http.StatusBadGateway, "http_protocol_error", "the server's answer: "+err.Error())
}

func isTimeout(err error) bool {
	var timeout net.Error
	return errors.As(err, &timeout) && timeout.Timeout()
}

func (x *exchange) unreachable(errno syscall.Errno) *refusal {
	bad := &refusal{status: http.StatusBadGateway, kind: "destination_unavailable", reason: x.s.to.String() + ": " + errno.Error()}
	switch errno {
	case syscall.ECONNREFUSED:
		bad.kind = "connection_refused"
	case syscall.ECONNRESET, syscall.EPIPE:
		bad.kind = "connection_terminated"
	case syscall.EACCES, syscall.EPERM:
		bad.kind = "destination_ip_prohibited"
	case syscall.ENETUNREACH, syscall.EHOSTUNREACH:
		bad.kind = "destination_ip_unroutable"
	case syscall.ETIMEDOUT:
		bad.status, bad.kind = http.StatusGatewayTimeout, "connection_timeout"
	}
	return bad
}
