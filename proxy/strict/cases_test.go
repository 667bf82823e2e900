package strict

import "strings"

// testCase is what a client sends, and what becomes of it.
type testCase struct {
	name   string
	in     string
	good   int    // requests that are handed on
	status int    // of the refusal behind them, or 0
	reason string // of the refusal, or of ErrBody
}

func req(line string, fields ...string) string {
	return line + "\r\n" + strings.Join(fields, "\r\n") + "\r\n\r\n"
}

// get is a request with these header lines beside Host.
func get(fields ...string) string {
	return req("GET / HTTP/1.1", append([]string{"Host: a.test"}, fields...)...)
}

func chunked(body string) string {
	return req("POST / HTTP/1.1", "Host: a.test", "Transfer-Encoding: chunked") + body
}

const smuggled = "GET /smuggled HTTP/1.1\r\nHost: a.test\r\n\r\n"

const (
	requestLine = "malformed request line"
	reqTarget   = "malformed request-target"
	targetOctet = "byte in the request-target"
	headerName  = "malformed header name"
	imitation   = "header name that imitates another"
	twice       = "header field is there twice"
	badLength   = "malformed Content-Length"
	badCoding   = "transfer coding other than chunked"
	badHost     = "malformed Host"
	crlf        = "line does not end in CRLF"
	control     = "control character in a header value"
	notOption   = "Connection names what is not an option"
	tooBig      = "too many bytes in header lines"
	notTrailer  = "field is not allowed in a trailer"
)

func cases() (list []testCase) {
	good := func(name, in string, n int) { list = append(list, testCase{name: name, in: in, good: n}) }
	refused := func(name string, status int, reason, in string) {
		list = append(list, testCase{name, in + smuggled, 0, status, reason})
	}

	// The request line.
	good("nothing", "", 0)
	good("GET", get(), 1)
	good("HTTP/1.0", req("GET / HTTP/1.0", "Host: a.test"), 1)
	good("method with punctuation", req("VERSION-CONTROL_2 / HTTP/1.1", "Host: a.test"), 1)
	good("query", req("GET /a/b;c=d?e=100%&f={\"x\":[1|2]} HTTP/1.1", "Host: a.test"), 1)
	good("encoded", req("GET /%2e%2E/%00 HTTP/1.1", "Host: a.test"), 1)
	good("OPTIONS *", req("OPTIONS * HTTP/1.1", "Host: a.test"), 1)
	good("absolute", req("GET http://a.test/x?y HTTP/1.1", "Host: a.test"), 1)
	good("absolute without path", req("GET http://a.test HTTP/1.1", "Host: a.test"), 1)
	good("absolute with query alone", req("GET http://a.test?x HTTP/1.1", "Host: a.test"), 1)
	good("absolute, other case and the default port", req("GET https://A.test/ HTTP/1.1", "Host: a.TEST:443"), 1)
	good("absolute with port", req("GET http://a.test:8080/ HTTP/1.1", "Host: a.test:8080"), 1)
	good("absolute in HTTP/1.0 without Host", req("GET http://a.test/ HTTP/1.0", "Accept: *"), 1)
	good("two in one packet", get()+get(), 2)
	refused("empty line first", 400, requestLine, "\r\n"+get())
	list = append(list, testCase{"empty line after GET", get() + "\r\n" + smuggled, 1, 400, requestLine})
	refused("no version", 400, requestLine, req("GET /"))
	refused("HTTP/0.9", 400, requestLine, "GET /\r\n")
	refused("HTTP/0.9 named", 505, "HTTP version is not supported", req("GET / HTTP/0.9", "Host: a.test"))
	refused("HTTP/1.2", 505, "HTTP version is not supported", req("GET / HTTP/1.2", "Host: a.test"))
	refused("HTTP/2", 505, "HTTP version is not supported", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
	refused("HTTP/01.1", 400, requestLine, req("GET / HTTP/01.1", "Host: a.test"))
	refused("lower-case http", 400, requestLine, req("GET / http/1.1", "Host: a.test"))
	refused("another protocol", 400, requestLine, req("GET / HTTQ/1.1", "Host: a.test"))
	refused("SSH", 400, requestLine, "SSH-2.0-OpenSSH_9.9\r\n")
	refused("space before the method", 400, requestLine, req(" GET / HTTP/1.1", "Host: a.test"))
	refused("space behind the version", 400, requestLine, req("GET / HTTP/1.1 ", "Host: a.test"))
	refused("two spaces", 400, requestLine, req("GET  / HTTP/1.1", "Host: a.test"))
	refused("two spaces before the version", 400, requestLine, req("GET /  HTTP/1.1", "Host: a.test"))
	refused("tabs", 400, requestLine, req("GET\t/\tHTTP/1.1", "Host: a.test"))
	refused("tab in the target", 400, targetOctet, req("GET /\t HTTP/1.1", "Host: a.test"))
	refused("space in the target", 400, requestLine, req("GET /a b HTTP/1.1", "Host: a.test"))
	refused("version twice", 400, requestLine, req("GET / HTTP/1.1 HTTP/1.1", "Host: a.test"))
	refused("lower-case method", 400, requestLine, req("get / HTTP/1.1", "Host: a.test"))
	refused("colon in the method", 400, requestLine, req("GET: / HTTP/1.1", "Host: a.test"))
	refused("long method", 400, requestLine, req(strings.Repeat("A", maxMethod+1)+" / HTTP/1.1", "Host: a.test"))
	refused("CONNECT", 405, "method is not supported", req("CONNECT a.test:443 HTTP/1.1", "Host: a.test:443"))
	refused("TRACE", 405, "method is not supported", req("TRACE / HTTP/1.1", "Host: a.test"))
	refused("GET *", 400, "request-target * without OPTIONS", req("GET * HTTP/1.1", "Host: a.test"))
	refused("OPTIONS */", 400, reqTarget, req("OPTIONS */ HTTP/1.1", "Host: a.test"))
	refused("no target", 400, requestLine, req("GET HTTP/1.1", "Host: a.test"))
	refused("empty target", 400, reqTarget, req("GET  HTTP/1.1", "Host: a.test"))
	refused("relative target", 400, reqTarget, req("GET a HTTP/1.1", "Host: a.test"))
	refused("authority target", 400, reqTarget, req("GET a.test:80 HTTP/1.1", "Host: a.test"))
	refused("fragment", 400, targetOctet, req("GET /#x HTTP/1.1", "Host: a.test"))
	refused("backslash", 400, targetOctet, req("GET /..\\admin HTTP/1.1", "Host: a.test"))
	refused("UTF-8 target", 400, targetOctet, req("GET /\u00e9 HTTP/1.1", "Host: a.test"))
	refused("NUL in the target", 400, targetOctet, req("GET /\x00 HTTP/1.1", "Host: a.test"))
	refused("DEL in the target", 400, targetOctet, req("GET /\x7f HTTP/1.1", "Host: a.test"))
	refused("CR in the target", 400, targetOctet, req("GET /\r HTTP/1.1", "Host: a.test"))
	refused("LF in the target", 400, crlf, req("GET /\n HTTP/1.1", "Host: a.test"))
	refused("broken percent-encoding", 400, "malformed percent-encoding in the path", req("GET /%2 HTTP/1.1", "Host: a.test"))
	refused("wrong percent-encoding", 400, "malformed percent-encoding in the path", req("GET /%gg?x HTTP/1.1", "Host: a.test"))
	refused("absolute with userinfo", 400, reqTarget, req("GET http://a.test@b.test/ HTTP/1.1", "Host: b.test"))
	refused("absolute with password", 400, reqTarget, req("GET http://a:x@b.test/ HTTP/1.1", "Host: b.test"))
	refused("absolute, other Host", 400, "Host differs from the request-target", req("GET http://a.test/ HTTP/1.1", "Host: b.test"))
	refused("absolute, other port", 400, "Host differs from the request-target", req("GET http://a.test:22/ HTTP/1.1", "Host: a.test"))
	refused("absolute, port of another scheme", 400, "Host differs from the request-target", req("GET http://a.test:443/ HTTP/1.1", "Host: a.test"))
	refused("absolute, other Host in HTTP/1.0", 400, "Host differs from the request-target", req("GET http://a.test/ HTTP/1.0", "Host: b.test"))
	refused("absolute without Host", 400, "no Host", req("GET http://a.test/ HTTP/1.1", "Accept: *"))
	refused("absolute without authority", 400, reqTarget, req("GET http:/// HTTP/1.1", "Host: a.test"))
	refused("absolute with upper case", 400, reqTarget, req("GET HTTP://a.test/ HTTP/1.1", "Host: a.test"))
	refused("absolute with one slash", 400, reqTarget, req("GET http:/a.test/ HTTP/1.1", "Host: a.test"))
	refused("ftp", 400, reqTarget, req("GET ftp://a.test/ HTTP/1.1", "Host: a.test"))
	refused("file", 400, reqTarget, req("GET file:///etc/passwd HTTP/1.1", "Host: a.test"))

	// Header lines.
	good("many fields", get("Accept: */*", "User-Agent: x", "X-Empty:", "X-Tab:\ta\tb", "X-Latin: \x80\xe9\xff", "x_under: 1", "A!#$%&'*+-.^_`|~9: :"), 1)
	good("as many lines as may be", get(lines(maxLines-1)...), 1)
	refused("too many lines", 431, "too many header lines", get(lines(maxLines)...))
	refused("folded line", 400, "folded header line", get("X: a", " b"))
	refused("folded line with tab", 400, "folded header line", get("X: a", "\tb"))
	refused("first line folded", 400, "folded header line", req("GET / HTTP/1.1", " Host: a.test"))
	refused("space before the colon", 400, headerName, get("X : a"))
	refused("tab before the colon", 400, headerName, get("Transfer-Encoding\t: chunked"))
	refused("space in a name", 400, headerName, get("X Y: a"))
	refused("no name", 400, headerName, get(": a"))
	refused("no colon", 400, "header line without colon", get("Content-Length"))
	refused("NUL in a name", 400, headerName, get("X\x00: a"))
	refused("UTF-8 in a name", 400, headerName, get("\u00e9: a"))
	refused("quote in a name", 400, headerName, get("\"X\": a"))
	refused("NUL in a value", 400, control, get("X: a\x00b"))
	refused("VT in a value", 400, control, get("X: a\vb"))
	refused("DEL in a value", 400, control, get("X: a\x7fb"))
	refused("bare CR in a value", 400, control, get("X: a\rTransfer-Encoding: chunked"))
	refused("two CR", 400, control, get("X: a\r"))
	refused("bare LF", 400, crlf, get("X: a\nTransfer-Encoding: chunked"))
	refused("bare LF alone", 400, crlf, "GET / HTTP/1.1\nHost: a.test\n\n")
	refused("bare LF at the end", 400, crlf, "GET / HTTP/1.1\r\nHost: a.test\r\n\n")
	refused("LF CR", 400, crlf, "GET / HTTP/1.1\n\rHost: a.test\n\r\n\r")
	refused("CR and more for the end", 400, headerName, "GET / HTTP/1.1\r\nHost: a.test\r\n\rX: a\r\n\r\n")

	// Host.
	for _, h := range []string{"a", "a.test.", "A-b_c.test:1", "192.0.2.1:65535", "[::1]", "[2001:DB8::1]:8080", " a.test"} {
		good("Host "+h, req("GET / HTTP/1.1", "Host:"+h), 1)
	}
	for _, h := range []string{"", " ", "  a.test", "\ta.test", "a.test ", "a@b.test", "a b", "a,b", "a%41", "a:", "a:0", "a:080", "a:65536", "a:-1", "a:1:2",
		":80", ".", ".a", "a..b", "a/b", "a?b", "a\\b", "\u0430.test", "[", "[]", "[::1", "::1", "[::1]x", "[::1]x80", "[::1]:", "[fe80::1%25eth0]", "[fe80::1%eth0]",
		"[1.2.3.4]", "[::ffff:1.2.3.4]", "[a]", "a[::1]", "a!b", "a'b", strings.Repeat("a", 255), RefusedHost} {
		refused("Host "+h, 400, badHost, req("GET / HTTP/1.1", "Host:"+h))
	}
	refused("NUL in Host", 400, control, req("GET / HTTP/1.1", "Host: a\x00b"))
	refused("no Host", 400, "no Host", req("GET / HTTP/1.1", "Accept: *"))
	refused("no Host in HTTP/1.0", 400, "no Host", req("GET / HTTP/1.0", "Accept: *"))
	refused("no fields at all", 400, "no Host", "GET / HTTP/1.0\r\n\r\n")
	refused("Host twice", 400, twice, get("Host: b.test"))
	refused("Host twice, equal", 400, twice, get("host: a.test"))
	refused("Host twice in HTTP/1.0", 400, twice, req("GET / HTTP/1.0", "Host: a.test", "Host: b.test"))

	// Length and coding: what smuggling lives on.
	post := func(fields ...string) string {
		return req("POST / HTTP/1.1", append([]string{"Host: a.test"}, fields...)...)
	}
	good("body", post("Content-Length: 5")+"hello", 1)
	good("empty body", post("Content-Length: 0"), 1)
	good("no body", post(), 1)
	good("body that looks like a request", post("content-length:40")+smuggled, 1)
	good("body and another request", post("Content-Length: 5")+"hello"+get(), 2)
	good("empty line after a body", post("Content-Length: 5")+"hello\r\n"+get(), 2)
	good("empty line at the end", post("Content-Length: 5")+"hello\r\n", 1)
	good("body of GET", get("Content-Length: 5")+"hello"+get(), 2)
	good("body in HTTP/1.0", req("POST / HTTP/1.0", "Host: a.test", "Content-Length: 5")+"hello", 1)
	list = append(list,
		testCase{"two empty lines after a body", post("Content-Length: 5") + "hello\r\n\r\n" + smuggled, 1, 400, requestLine},
		testCase{"LF after a body", post("Content-Length: 5") + "hello\n" + smuggled, 1, 400, crlf},
		testCase{"garbage after a body", post("Content-Length: 5") + "hello!" + smuggled, 1, 400, requestLine},
		testCase{"refused after a good one", get() + get("X : a") + smuggled, 1, 400, headerName},
		testCase{"CL.0", post() + "x=1", 1, 0, ""}, // without a length there is no body
		testCase{"CL.0 with a line", post() + "x=1\r\n" + smuggled, 1, 400, requestLine})
	for _, v := range []string{"", " ", "+5", "-5", "5,5", "5, 5", "5 ", " 5 ", "  5", "\t5", "5\t", "0x5", "5.0", "5e1", "1 1", "05", "00", "\u0665", "1_0", "5;",
		"4611686018427387905", "9223372036854775808", "18446744073709551621", "99999999999999999999", "340282366920938463463374607431768211461"} {
		refused("Content-Length "+v, 400, badLength, post("Content-Length:"+v)+"hello")
	}
	good("the longest body", post("Content-Length: 4611686018427387904"), 1)
	refused("length twice, equal", 400, twice, post("Content-Length: 5", "Content-Length: 5")+"hello")
	refused("length twice", 400, twice, post("Content-Length: 5", "Content-length: 0")+"hello")
	refused("CL.TE", 400, "Content-Length and Transfer-Encoding", post("Content-Length: 6", "Transfer-Encoding: chunked")+"0\r\n\r\nG")
	refused("TE.CL", 400, "Content-Length and Transfer-Encoding", post("Transfer-Encoding: chunked", "Content-Length: 4")+"12\r\nGPOST / HTTP/1.1\r\n\r\n0\r\n\r\n")
	refused("coding twice", 400, twice, post("Transfer-Encoding: chunked", "Transfer-Encoding: chunked")+"0\r\n\r\n")
	refused("TE.TE", 400, twice, post("Transfer-Encoding: chunked", "Transfer-encoding: cow")+"0\r\n\r\n")
	refused("coding in HTTP/1.0", 400, "Transfer-Encoding in HTTP/1.0", req("POST / HTTP/1.0", "Host: a.test", "Transfer-Encoding: chunked")+"0\r\n\r\n")
	for _, v := range []string{"", " ", " xchunked", " identity", " gzip", " gzip, chunked", " chunked, chunked", " chunked,", " ,chunked", " chunked;q=1", " \"chunked\"",
		" 'chunked'", " chunked ", "  chunked", "\tchunked", " chunked\t", " chunk", " x", " chunked\xa0", " chun\u212aed"} {
		refused("coding"+v, 501, badCoding, post("Transfer-Encoding:"+v)+"0\r\n\r\n")
	}
	refused("coding with VT", 400, control, post("Transfer-Encoding: \vchunked")+"0\r\n\r\n")
	refused("coding with CR", 400, control, post("Transfer-Encoding: chunked\rx")+"0\r\n\r\n")
	refused("coding on a folded line", 501, badCoding, post("Transfer-Encoding:", " chunked")+"0\r\n\r\n")
	refused("coding with space before the colon", 400, headerName, post("Transfer-Encoding : chunked")+"0\r\n\r\n")
	refused("coding behind a bare CR", 400, control, post("X: y\rTransfer-Encoding: chunked")+"0\r\n\r\n")
	for _, n := range []string{"Content_Length", "content.length", "Transfer_Encoding", "Transfer~Encoding", "X_Forwarded-For", "proxy_authorization"} {
		refused(n, 400, imitation, post(n+": 5")+"hello")
	}

	// Chunks.
	body := func(name, reason, in string) {
		list = append(list, testCase{name, chunked(in) + smuggled, 1, 0, reason})
	}
	good("chunks", chunked("5\r\nhello\r\n00A\r\n0123456789\r\n0\r\n\r\n"), 1)
	good("no chunks", chunked("0\r\n\r\n")+get(), 2)
	good("chunks and another request", chunked("1\r\nx\r\n0000000000000000\r\n\r\n")+get(), 2)
	good("CHUNKED", post("transfer-encoding:CHUNKED")+"0\r\n\r\n", 1)
	good("chunk extension", chunked("1;a=\"b\";c\r\nx\r\n0;d\r\n\r\n")+get(), 2)
	good("trailer", chunked("0\r\nX-Sum: 1\r\nY:\r\n\r\n")+get(), 2)
	good("empty line after chunks", chunked("0\r\n\r\n")+"\r\n"+get(), 2)
	body("no chunk size", "chunk size", "\r\n")
	body("negative chunk", "chunk size", "-1\r\n")
	body("chunk with sign", "chunk size", "+1\r\nx\r\n")
	body("chunk with prefix", "chunk size", "0x1\r\nx\r\n")
	body("chunk with space in front", "chunk size", " 1\r\nx\r\n")
	body("chunk with space behind", "chunk size", "1 \r\nx\r\n")
	body("chunk with space before the extension", "chunk size", "1 ;a\r\nx\r\n")
	body("chunk size with underscore", "chunk size", "1_0\r\nx\r\n")
	body("chunk overflow", "chunk size", "10000000000000001\r\nx\r\n")
	body("chunk overflow by zeros", "chunk size", "00000000000000001\r\nx\r\n")
	body("huge chunk", "chunk size", "ffffffffffffffff\r\nx\r\n")
	body("huge chunk, signed", "chunk size", "8000000000000000\r\nx\r\n")
	body("chunk line with LF", crlf, "1\nx\r\n0\r\n\r\n")
	body("LF in the extension", crlf, "1;a\nx\r\n0\r\n\r\n")
	body("CR in the extension", "chunk extension", "1;a\rb\r\nx\r\n0\r\n\r\n")
	body("NUL in the extension", "chunk extension", "1;\x00\r\nx\r\n0\r\n\r\n")
	body("UTF-8 in the extension", "chunk extension", "1;\u00e9\r\nx\r\n0\r\n\r\n")
	body("chunk longer than its size", "no line end after a chunk", "1\r\nxy\r\n0\r\n\r\n")
	body("chunk with LF behind", "no line end after a chunk", "1\r\nx\n0\r\n\r\n")
	body("chunk with CR behind", "no line end after a chunk", "1\r\nx\r0\r\n\r\n")
	body("chunk with other bytes behind", "no line end after a chunk", "1\r\nxAB0\r\n\r\n")
	body("LF behind the last chunk", crlf, "0\r\n\n")
	body("request behind the last chunk", "malformed header name", "0\r\n"+"GET /x: HTTP/1.1\r\n\r\n")
	body("CR behind the last chunk", "header line without colon", "0\r\n\rX\r\n")
	body("folded trailer", "folded header line", "0\r\nX: a\r\n b\r\n\r\n")
	body("malformed trailer", headerName, "0\r\nX : a\r\n\r\n")
	body("control character in a trailer", control, "0\r\nX: a\rb\r\n\r\n")
	body("long trailer", tooBig, "0\r\nX: "+strings.Repeat("x", maxTrailer)+"\r\n\r\n")
	for _, f := range []string{"Content-Length", "Transfer-Encoding", "Host", "Authorization", "Connection", "Trailer", "cookie", "Content-Type", "X-Forwarded-For"} {
		body("trailer "+f, notTrailer, "0\r\n"+f+": 5\r\n\r\n")
		refused("Trailer: "+f, 400, notTrailer, get("Trailer: X-Sum, "+f))
	}
	body("trailer that imitates", imitation, "0\r\nContent_Length: 5\r\n\r\n")
	good("Trailer", get("Trailer: X-Sum,Y", "trailer: Z"), 1)
	refused("empty Trailer", 400, "malformed Trailer", get("Trailer: "))
	refused("malformed Trailer", 400, "malformed Trailer", get("Trailer: a b"))

	// Connection, Upgrade, Expect.
	for _, v := range []string{"close", "Keep-Alive", "keep-alive, TE", "Upgrade,HTTP2-Settings", "upgrade"} {
		good("Connection "+v, get("Connection: "+v), 1)
	}
	good("two Connection lines", get("Connection: te", "Connection: close"), 1)
	for _, v := range []string{"", "close, Host", "Content-Length", "transfer-encoding", "close,Authorization", "Cookie", "X-Api-Key", "close;", "close,,te", "close, ", "clo\u017fe", "\u212aeep-alive"} {
		refused("Connection "+v, 400, notOption, get("Connection: "+v))
	}
	good("Upgrade", get("Connection: keep-alive, Upgrade", "Upgrade: websocket"), 1)
	good("two protocols", get("Upgrade: h2c, x/1.0", "Connection: upgrade"), 1)
	refused("Upgrade without Connection", 400, "Upgrade without Connection: upgrade", get("Upgrade: websocket"))
	refused("Upgrade without its option", 400, "Upgrade without Connection: upgrade", get("Connection: close", "Upgrade: websocket"))
	refused("Upgrade twice", 400, twice, get("Connection: upgrade", "Upgrade: websocket", "Upgrade: h2c"))
	refused("Upgrade in HTTP/1.0", 400, "Upgrade in HTTP/1.0", req("GET / HTTP/1.0", "Host: a.test", "Connection: upgrade", "Upgrade: websocket"))
	for _, v := range []string{"", ",", "web socket", "/1", "a/", "a/b/c"} {
		refused("Upgrade "+v, 400, "malformed Upgrade", get("Connection: upgrade", "Upgrade: "+v))
	}
	good("Expect", post("Expect: 100-Continue", "Content-Length: 1")+"x", 1)
	refused("other expectation", 417, "expectation other than 100-continue", post("Expect: 200-ok"))
	refused("more expectations", 417, "expectation other than 100-continue", post("Expect: 100-continue, x"))
	refused("Expect twice", 400, twice, post("Expect: 100-continue", "Expect: 100-continue"))
	return list
}

func lines(n int) (list []string) {
	for range n {
		list = append(list, "X: y")
	}
	return list
}
