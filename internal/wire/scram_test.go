package wire

import (
	"errors"
	"strings"
	"testing"

	"github.com/xdg-go/scram"
)

// dialogue runs a client of the scram library against SCRAM; gs2 replaces the channel binding flag of its first message.
func dialogue(t *testing.T, v Verifier, password, gs2 string) error {
	t.Helper()
	client, err := scram.SHA256.NewClientUnprepped("", password, "")
	if err != nil {
		t.Fatal(err)
	}
	conv := client.NewConversation()
	first, err := conv.Step("")
	if err != nil {
		t.Fatal(err)
	}
	first = strings.Replace(first, "n,,", gs2, 1)
	s, err := NewSCRAM(v)
	if err != nil {
		t.Fatal(err)
	}
	challenge, err := s.First(SASLInitial{Mechanism: []byte(MechanismSCRAM), Response: []byte(first)})
	if err != nil {
		return err
	}
	proof, err := conv.Step(string(challenge))
	if err != nil {
		t.Fatal(err)
	}
	final, err := s.Final([]byte(proof))
	if err != nil {
		if s.Done() {
			t.Error("done after a failure")
		}
		return err
	}
	if _, err := conv.Step(string(final)); err != nil || !conv.Valid() || !s.Done() {
		t.Errorf("the client does not believe the server: %v", err)
	}
	return nil
}

func TestSCRAM(t *testing.T) {
	v, err := NewVerifier("pencil")
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := ParseVerifier(v.Reveal())
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name     string
		verifier Verifier
		password string
		gs2      string
		wrong    bool
		sqlstate string
	}{
		{name: "right", verifier: v, password: "pencil"},
		{name: "right, from a stored verifier", verifier: parsed, password: "pencil"},
		{name: "wrong", verifier: v, password: "pencil2", wrong: true},
		{name: "unknown user", verifier: MockVerifier([]byte("secret"), "bob"), password: "pencil", wrong: true},
		{name: "channel binding that was not offered", verifier: v, password: "pencil", gs2: "p=tls-server-end-point,,", sqlstate: ProtocolViolation},
		{name: "flag that is none", verifier: v, password: "pencil", gs2: "x,,", sqlstate: ProtocolViolation},
		{name: "nothing", verifier: v, password: "pencil", gs2: "\x00", sqlstate: ProtocolViolation},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if tt.gs2 == "" {
				tt.gs2 = "n,,"
			}
			err := dialogue(t, tt.verifier, tt.password, tt.gs2)
			if errors.Is(err, ErrWrongPassword) != tt.wrong || SQLSTATE(err) != tt.sqlstate {
				t.Errorf("got %v", err)
			}
			if (err == nil) != (!tt.wrong && tt.sqlstate == "") {
				t.Errorf("got %v", err)
			}
		})
	}
}

// A client over TLS that saw no PLUS on offer says y. Its proof covers the flag, so it is computed here by hand.
func TestSCRAMFlagY(t *testing.T) {
	v, err := NewVerifier("pencil")
	if err != nil {
		t.Fatal(err)
	}
	s, err := NewSCRAM(v)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.First(SASLInitial{Mechanism: []byte(MechanismSCRAM), Response: []byte("y,,n=,r=nonce")}); err != nil {
		t.Errorf("flag y is right when PLUS was not offered: %v", err)
	}
	if _, err := s.Final([]byte("c=eSws,r=other,p=AAAA")); SQLSTATE(err) != ProtocolViolation {
		t.Errorf("foreign nonce: %v", err)
	}
	if _, err := s.Final([]byte("c=eSws,r=other,p=AAAA")); SQLSTATE(err) != ProtocolViolation {
		t.Errorf("after the end: %v", err)
	}
}

// An unknown user must look like a known one: a plausible salt that does not change from one try to the next.
func TestMockVerifier(t *testing.T) {
	a, again, b := MockVerifier([]byte("s"), "ann"), MockVerifier([]byte("s"), "ann"), MockVerifier([]byte("s"), "bob")
	if a.Reveal() != again.Reveal() {
		t.Error("the salt of an unknown user changes")
	}
	if string(a.Salt) == string(b.Salt) || len(a.Salt) != scramSaltLen || a.Iterations != DefaultIterations {
		t.Errorf("implausible: %v and %v", a.Salt, b.Salt)
	}
	if string(MockVerifier([]byte("other"), "ann").Salt) == string(a.Salt) {
		t.Error("the salt can be computed without the secret")
	}
}

// Verifiers that PostgreSQL 15 made (CREATE ROLE ... PASSWORD, scram_iterations 4096).
func TestVerifierFromPostgreSQL(t *testing.T) {
	for _, tt := range []struct{ password, verifier string }{
		{"pencil", "SCRAM-SHA-256$4096:BeUW3t2Q8KHy09N5o4CRnA==$fR4apOfEYSk3XWy75WGK9q2BqAMeP9RNJUz6FvB/utk=:TRAE0a4+bjVxPcU9T00BOr0FiexX+ZoNbX55Ty47v3A="},
		{"p\u00e4ssw\u00f6rd", "SCRAM-SHA-256$4096:krlx1aI7xE9D1k4imUVg0w==$xOXfG3gYgQkB7qC2sPmhHksQO4UddSCjQ4pGjjs9hv8=:gruaTLWI96CuxZ/gKBZjjcugfSjLv/PB1BFxgbl+uNc="},
		{"I\u00adX", "SCRAM-SHA-256$4096:ZkhCFk3G9QLPrFsWJRQ+zg==$6mg2Z/sKbrmZFGtg0FVrlw9YJhetWptVf64lx7QcjzU=:7tt5TMPm/LQveHwJ/TbdNRRQOhg8tURpH1Pt3oBDteE="},
		{"a\u00a0b", "SCRAM-SHA-256$4096:an/ZDWAC4+KfK5cZeC/9tg==$3RvFt4wgdo4zfLa6CLCRWi5VV/r1KDnKCw9qSxvymtw=:zvCQFr4fWtinrMVlLxC/peytYNzdC0L+vl5549L/BK4="},
		{"\u2168", "SCRAM-SHA-256$4096:95LUB1Yw2RuSYo+NeuwEAQ==$LQYyE1JGyua13CGzuP7dBySLb1Q8uzHEtBn9MCm9qZE=:lYgi9DDDow0gMZfPNxIBBv2G7GVgOM+e/pdmEW14/U0="},
		{"\u200bzero", "SCRAM-SHA-256$4096:3uf9TcT9L+ndmXk45rLiNA==$afOS6xZMOOWQ6p8PUO0ogcqjQ8VAHmcpzCUScqI39qc=:f4r5EVma9EBmrNjkJ4H+SzLnlZp1TctLbJ6GuHlnIP4="},
		{"bell\u0007", "SCRAM-SHA-256$4096:uA6UGXLkTRtqTQBOshfMSQ==$XpqphiENnnO3kHg5AXjqHMZRUiNJ4tMbpIHEPFMum2U=:rSMp8wINY9Eam/leASsCZ8Z8/E7p8ydiYFrUPM3QWwA="},
		{"\u0221new", "SCRAM-SHA-256$4096:raDhX5eph2oA+WCB6sd/eg==$cHFb04D5kkAQMzhgL537TXjtjAiUa69gYL00C1OqS3Q=:O9HdqBfWvjclcKmKbhJXP8obk11VnDUpQpBBxtTSfsw="},
		{"100%", "SCRAM-SHA-256$4096:42sWvQ5xTosJJATIWd100g==$G6uR5pBRfA0DWhcvrBN0CFsXje+kFfu2JZEuiJz7bSE=:1FjFD+2hlpN0q1aa2JERMNusbPW13VVwELDN10JFLu0="},
		{"\u00ad", "SCRAM-SHA-256$4096:L1nLGQE55ebZVhYk/MHpJQ==$w8ro26EwY59A09rUbnuRSbov8XyifWybcLMpvUFCwyQ=:zD5G5GffhglsyD4l7OjnYKEdrbGBfkJQwetuXi6gr/Y="},
	} {
		v, err := ParseVerifier(tt.verifier)
		if err != nil {
			t.Fatal(err)
		}
		if !v.CheckPassword(tt.password) || v.CheckPassword(tt.password+"x") {
			t.Errorf("password %q does not fit its verifier", tt.password)
		}
		if v.Reveal() != tt.verifier {
			t.Errorf("got %s back, want %s", v.Reveal(), tt.verifier)
		}
	}
}

func TestParseVerifierRefuses(t *testing.T) {
	const keys = "$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="
	if _, err := ParseVerifier("SCRAM-SHA-256$4096:c2FsdA==" + keys); err != nil {
		t.Fatalf("a good one: %v", err)
	}
	for _, s := range []string{
		"", "pencil", "md5aabbcc", "SCRAM-SHA-256", "SCRAM-SHA-256$4096:c2FsdA==", "SCRAM-SHA-256$x:c2FsdA==" + keys,
		"SCRAM-SHA-256$0:c2FsdA==" + keys, "SCRAM-SHA-256$9999999999:c2FsdA==" + keys, "SCRAM-SHA-256$4096:" + keys,
		"SCRAM-SHA-256$4096:!!" + keys, "SCRAM-SHA-256$4096:c2FsdA==$AAAA:AAAA", "SCRAM-SHA-256$4096:c2FsdA==" + keys + "$",
	} {
		if _, err := ParseVerifier(s); err == nil {
			t.Errorf("%q was accepted", s)
		} else if len(s) > 20 && strings.Contains(err.Error(), s) {
			t.Errorf("the error shows the secret: %v", err)
		}
	}
}
