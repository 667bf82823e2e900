package main_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

type text = wrapperspb.StringValue

// phone is a service: it turns words round, and fails where it is asked to.
var phone = grpc.ServiceDesc{
	ServiceName: "test.Phone",
	HandlerType: (*any)(nil),
	Methods: []grpc.MethodDesc{{MethodName: "Turn", Handler: func(_ any, ctx context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
		var in text
		if err := decode(&in); err != nil {
			return nil, err
		}
		md, _ := metadata.FromIncomingContext(ctx)
		if err := grpc.SetTrailer(ctx, metadata.Pairs("seen", strings.Join(md["authorization"], ","))); err != nil {
			return nil, err
		}
		if in.Value == "fail" {
			return nil, status.Error(codes.FailedPrecondition, "as you wish: ä")
		}
		return wrapperspb.String(turned(in.Value)), nil
	}}},
	Streams: []grpc.StreamDesc{{StreamName: "Talk", ServerStreams: true, ClientStreams: true, Handler: func(_ any, s grpc.ServerStream) error {
		n := 0
		for ; ; n++ {
			var in text
			err := s.RecvMsg(&in)
			if err == io.EOF {
				s.SetTrailer(metadata.Pairs("count", fmt.Sprint(n)))
				return nil
			}
			if err != nil {
				return err
			}
			if err := s.SendMsg(wrapperspb.String(turned(in.Value))); err != nil {
				return err
			}
		}
	}}},
}

func turned(s string) string {
	r := []rune(s)
	for i, j := 0, len(r)-1; i < j; i, j = i+1, j-1 {
		r[i], r[j] = r[j], r[i]
	}
	return string(r)
}

// Real gRPC on both sides: calls, streams whose two directions are open at the same time, trailers, codes, deadlines.
func Test_http_grpc(t *testing.T) {
	asOne(t, func(t *testing.T, p *place) {
		ca, err := authority()
		if err != nil {
			t.Fatal(err)
		}
		l := listen(t, "127.0.0.1")
		server := grpc.NewServer(grpc.Creds(credentials.NewTLS(&tls.Config{GetCertificate: ca.leaf})))
		server.RegisterService(&phone, struct{}{})
		go func() { _ = server.Serve(l) }()
		t.Cleanup(server.Stop)
		p.reads = append(p.reads, goClientDir(t))
		policy := p.policy(`hosts: "api.test": ["127.0.0.1"]`, fmt.Sprintf(`$TLS
ports: [%s], allow: ["POST api.test/test.Phone/*"], deny: ["* api.test/test.Phone/Denied"]
credentials: c: source: "file:%s", auth: [{rule: "* api.test", credential: "c", as: "bearer"}]`, port(l), p.File(p.Outside+"/key", "GRPCSECRET")))
		wantOutput(t, p.goClient(policy, "grpc", "api.test:"+port(l)), `olleh OK trailer [Bearer [redacted]]
 FailedPrecondition as you wish: ä
talk: 100 in turn, EOF, trailer [100]
large: 1048576
 PermissionDenied unexpected HTTP status code received from server: 403 (Forbidden); transport: received unexpected content-type "text/plain; charset=utf-8"
 DeadlineExceeded`)
	})
}

func clientGRPC(args []string) error {
	conn, err := grpc.NewClient(args[0], grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{})))
	if err != nil {
		return err
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	var out text
	var trailer metadata.MD
	err = conn.Invoke(ctx, "/test.Phone/Turn", wrapperspb.String("hello"), &out, grpc.Trailer(&trailer))
	fmt.Println(out.Value, status.Code(err), "trailer", trailer["seen"])
	out.Reset()
	err = conn.Invoke(ctx, "/test.Phone/Turn", wrapperspb.String("fail"), &out)
	fmt.Println(out.Value, status.Code(err), status.Convert(err).Message())

	stream, err := conn.NewStream(ctx, &phone.Streams[0], "/test.Phone/Talk")
	if err != nil {
		return err
	}
	for i := range 100 { // each answer is waited for before the next word
		if err := stream.SendMsg(wrapperspb.String(fmt.Sprint("w", i))); err != nil {
			return err
		}
		if err := stream.RecvMsg(&out); err != nil {
			return err
		}
		if out.Value != turned(fmt.Sprint("w", i)) {
			return fmt.Errorf("answer %d is %q", i, out.Value)
		}
	}
	if err := stream.CloseSend(); err != nil {
		return err
	}
	fmt.Printf("talk: 100 in turn, %v, trailer %v\n", stream.RecvMsg(&out), stream.Trailer()["count"])

	if err := conn.Invoke(ctx, "/test.Phone/Turn", wrapperspb.String(strings.Repeat("x", 1<<20)), &out); err != nil {
		return err
	}
	fmt.Println("large:", len(out.Value))
	out.Reset()
	err = conn.Invoke(ctx, "/test.Phone/Denied", wrapperspb.String("x"), &out)
	why, _, _ := strings.Cut(status.Convert(err).Message(), "\n")
	fmt.Println(out.Value, status.Code(err), why)

	short, stop := context.WithTimeout(ctx, 200*time.Millisecond)
	defer stop()
	out.Reset()
	if stream, err = conn.NewStream(short, &phone.Streams[0], "/test.Phone/Talk"); err == nil {
		err = stream.RecvMsg(&out)
	}
	fmt.Println(out.Value, status.Code(err))
	return nil
}
