package wire

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"strings"
	"testing"
)

// The exchange of RFC 7677, section 3: user "user", password "pencil".
const (
	rfcFirst       = "n,,n=user,r=rOprNGfwEbeRWgbNEkqO"
	rfcServerFirst = "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
	rfcFinal       = "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
	rfcServerFinal = "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="
)

func rfcClient(t *testing.T, password string, keys *ClientKeys) *SCRAMClient {
	t.Helper()
	c, err := NewSCRAMClient("user", password, keys)
	if err != nil {
		t.Fatal(err)
	}
	c.nonce = "rOprNGfwEbeRWgbNEkqO"
	return c
}

func TestSCRAMClientVector(t *testing.T) {
	salt, err := b64.DecodeString("W22ZaJ0SNY7soEsUEjb6gQ==")
	if err != nil {
		t.Fatal(err)
	}
	keys, err := deriveKeys("pencil", salt, 4096)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]*SCRAMClient{"password": rfcClient(t, "pencil", nil), "keys": rfcClient(t, "", &keys)} {
		if got := string(c.First()); got != rfcFirst {
			t.Errorf("%s: first is %s", name, got)
		}
		got, err := c.Final([]byte(rfcServerFirst))
		if err != nil || string(got) != rfcFinal {
			t.Errorf("%s: final is %s, %v", name, got, err)
		}
		if c.Done() {
			t.Errorf("%s: done before the server has proven itself", name)
		}
		if err := c.Verify([]byte(rfcServerFinal)); err != nil || !c.Done() {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestSCRAMServerVector(t *testing.T) {
	salt, err := b64.DecodeString("W22ZaJ0SNY7soEsUEjb6gQ==")
	if err != nil {
		t.Fatal(err)
	}
	v, err := deriveVerifier("pencil", salt, 4096)
	if err != nil {
		t.Fatal(err)
	}
	s, err := NewSCRAM(v)
	if err != nil {
		t.Fatal(err)
	}
	s.nonce = "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"
	first, err := s.First(SASLInitial{Mechanism: []byte(MechanismSCRAM), Response: []byte(rfcFirst)})
	if err != nil || string(first) != rfcServerFirst {
		t.Fatalf("got %s, %v", first, err)
	}
	final, err := s.Final([]byte(rfcFinal))
	if err != nil || string(final) != rfcServerFinal {
		t.Fatalf("got %s, %v", final, err)
	}
}

// A server that lies, or is somebody else, is found out.
func TestSCRAMClientRefusesServers(t *testing.T) {
	const nonce = "r=rOprNGfwEbeRWgbNEkqO"
	for _, tt := range []struct{ name, first, final string }{
		{"empty challenge", "", ""},
		{"foreign nonce", "r=other,s=c2FsdA==,i=4096", ""},
		{"client's nonce alone", nonce + ",s=c2FsdA==,i=4096", ""},
		{"nonce that does not print", nonce + "\x01,s=c2FsdA==,i=4096", ""},
		{"no salt", nonce + "x,s=,i=4096", ""},
		{"bad salt", nonce + "x,s=!,i=4096", ""},
		{"no iterations", nonce + "x,s=c2FsdA==", ""},
		{"zero iterations", nonce + "x,s=c2FsdA==,i=0", ""},
		{"endless iterations", nonce + "x,s=c2FsdA==,i=2000000000", ""},
		{"mandatory extension", "m=x," + nonce + "x,s=c2FsdA==,i=4096", ""},
		{"wrong signature", rfcServerFirst, "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G8="},
		{"no signature", rfcServerFirst, "v="},
		{"server error", rfcServerFirst, "e=invalid-proof"},
		{"nothing", rfcServerFirst, ""},
	} {
		c := rfcClient(t, "pencil", nil)
		c.First()
		_, err := c.Final([]byte(tt.first))
		if err == nil {
			err = c.Verify([]byte(tt.final))
		}
		if err == nil || c.Done() {
			t.Errorf("%s: accepted", tt.name)
		}
	}
	c := rfcClient(t, "pencil", nil)
	if err := c.Verify([]byte(rfcServerFinal)); err == nil {
		t.Error("a final message before the challenge was accepted")
	}
}

// A verifier may have as many iterations as PostgreSQL takes: they cost who logs in by the password, and nobody who has keys. What would cost
// this process is bounded.
func TestSCRAMIterations(t *testing.T) {
	made, err := deriveVerifier("pencil", []byte("salt"), 1)
	if err != nil {
		t.Fatal(err)
	}
	keys, err := deriveKeys("pencil", []byte("salt"), 1)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		iterations   int
		fits, parses bool
	}{{1, true, true}, {scramMaxDerived + 1, false, true}, {1<<31 - 1, false, true}, {1 << 31, false, false}, {0, false, false}, {-1, false, false}} {
		made.Iterations = tt.iterations
		v, err := ParseVerifier(made.Reveal())
		if (err == nil) != tt.parses {
			t.Errorf("%d iterations: %v", tt.iterations, err)
		}
		if err != nil {
			continue
		}
		if v.CheckPassword("pencil") != tt.fits {
			t.Errorf("%d iterations: that the password fits is %v", tt.iterations, !tt.fits)
		}
		s, err := NewSCRAM(v)
		if err != nil {
			t.Fatal(err)
		}
		c, err := NewSCRAMClient("ann", "", &keys)
		if err != nil {
			t.Fatal(err)
		}
		if err := exchange(t, s, c); err != nil || !c.Done() {
			t.Errorf("%d iterations: keys do not log in: %v", tt.iterations, err)
		}
	}
}

// exchange runs one login between the two sides.
func exchange(t *testing.T, s *SCRAM, c *SCRAMClient) error {
	t.Helper()
	first, err := s.First(SASLInitial{Mechanism: []byte(c.Mechanism()), Response: c.First()})
	if err != nil {
		return err
	}
	final, err := c.Final(first)
	if err != nil {
		return err
	}
	last, err := s.Final(final)
	if err != nil {
		return err
	}
	return c.Verify(last)
}

// The keys out of a client's proof log in to another server that has the same verifier, and to no other.
func TestSCRAMPassThrough(t *testing.T) {
	v, err := NewVerifier("pencil")
	if err != nil {
		t.Fatal(err)
	}
	login := func(v Verifier, password string, keys *ClientKeys) (*ClientKeys, error) {
		s, err := NewSCRAM(v)
		if err != nil {
			t.Fatal(err)
		}
		c, err := NewSCRAMClient("ann, the =", password, keys)
		if err != nil {
			t.Fatal(err)
		}
		err = exchange(t, s, c)
		return s.Keys(), err
	}
	keys, err := login(v, "pencil", nil)
	if err != nil || keys == nil {
		t.Fatalf("login by password: %v", err)
	}
	if _, err := login(v, "", keys); err != nil {
		t.Errorf("login by recovered keys: %v", err)
	}
	other, err := NewVerifier("pencil")
	if err != nil {
		t.Fatal(err)
	}
	if got, err := login(other, "", keys); !errors.Is(err, ErrWrongPassword) || got != nil {
		t.Errorf("login where the salt is another: %v", err)
	}
	if got, err := login(v, "wrong", nil); !errors.Is(err, ErrWrongPassword) || got != nil {
		t.Errorf("keys of a wrong password: %v, %v", got, err)
	}
	text, err := json.Marshal(keys)
	if err != nil {
		t.Fatal(err)
	}
	for _, shown := range []string{fmt.Sprintf("%v %+v %#v %s %x", keys, *keys, *keys, keys, *keys), string(text)} {
		if strings.Contains(shown, fmt.Sprintf("%x", keys.ClientKey)) || strings.Contains(shown, b64.EncodeToString(keys.ClientKey)) {
			t.Errorf("keys are shown: %s", shown)
		}
	}
}

func TestSCRAMChannelBinding(t *testing.T) {
	v, err := NewVerifier("pencil")
	if err != nil {
		t.Fatal(err)
	}
	here, elsewhere := []byte("this certificate"), []byte("another certificate")
	for _, tt := range []struct {
		name           string
		server, client []byte // the end point that each sees; nil: no TLS
		only           bool
		offered        bool // as the client heard
		sqlstate       string
	}{
		{name: "both bind", server: here, client: here, offered: true},
		{name: "the client does not, and need not", server: here},
		{name: "the client does not, and must", server: here, only: true, sqlstate: InvalidAuthorizationSpecification},
		{name: "the server cannot", client: here},
		{name: "somebody between", server: here, client: elsewhere, offered: true, sqlstate: InvalidAuthorizationSpecification},
		{name: "the offer was taken out", server: here, client: here, sqlstate: InvalidAuthorizationSpecification},
		{name: "it was not offered", client: here, offered: true, sqlstate: ProtocolViolation},
	} {
		s, err := NewSCRAM(v)
		if err != nil {
			t.Fatal(err)
		}
		if tt.server != nil {
			s.OfferBinding(tt.server, tt.only)
		}
		c, err := NewSCRAMClient("", "pencil", nil)
		if err != nil {
			t.Fatal(err)
		}
		if tt.client != nil {
			c.BindChannel(tt.client, tt.offered)
		}
		if err := exchange(t, s, c); SQLSTATE(err) != tt.sqlstate || (err == nil) != (tt.sqlstate == "") {
			t.Errorf("%s: got %v, want %q", tt.name, err, tt.sqlstate)
		}
	}
}

// The hash of the certificate is the one of its signature, and never a broken one.
func TestTLSServerEndPoint(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{SerialNumber: big.NewInt(1)}, &x509.Certificate{SerialNumber: big.NewInt(1)}, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	sum256, sum384, sum512 := sha256.Sum256(der), sha512.Sum384(der), sha512.Sum512(der)
	for algorithm, want := range map[x509.SignatureAlgorithm][]byte{
		x509.ECDSAWithSHA256: sum256[:], x509.SHA1WithRSA: sum256[:], x509.ECDSAWithSHA384: sum384[:],
		x509.SHA512WithRSA: sum512[:], x509.SHA256WithRSAPSS: sum256[:], x509.PureEd25519: nil,
	} {
		cert.SignatureAlgorithm = algorithm
		got, err := TLSServerEndPoint(cert)
		if string(got) != string(want) || (err == nil) != (want != nil) {
			t.Errorf("%v: got %x, %v", algorithm, got, err)
		}
	}
}
