package wire

import (
	"crypto"
	_ "crypto/sha256" // SHA-224 and SHA-256
	_ "crypto/sha512" // SHA-384 and SHA-512
	"crypto/x509"
	"fmt"
)

// gs2Bound is the header of a message that binds the channel. PostgreSQL knows this one type of binding.
const gs2Bound = "p=tls-server-end-point,,"

// TLSServerEndPoint is a channel binding (RFC 5929, section 4): the hash of the server's certificate, by the hash function
// of the certificate's own signature, with SHA-256 in place of MD5 and SHA-1. The error names signatures that have no
// such function, as Ed25519.
func TLSServerEndPoint(cert *x509.Certificate) ([]byte, error) {
	var hash crypto.Hash
	switch cert.SignatureAlgorithm {
	case x509.MD5WithRSA, x509.SHA1WithRSA, x509.DSAWithSHA1, x509.ECDSAWithSHA1,
		x509.SHA256WithRSA, x509.SHA256WithRSAPSS, x509.DSAWithSHA256, x509.ECDSAWithSHA256:
		hash = crypto.SHA256
	case x509.SHA384WithRSA, x509.SHA384WithRSAPSS, x509.ECDSAWithSHA384:
		hash = crypto.SHA384
	case x509.SHA512WithRSA, x509.SHA512WithRSAPSS, x509.ECDSAWithSHA512:
		hash = crypto.SHA512
	default:
		return nil, fmt.Errorf("no channel binding: a certificate signed by %v has no hash function of its own", cert.SignatureAlgorithm)
	}
	h := hash.New()
	h.Write(cert.Raw)
	return h.Sum(nil), nil
}
