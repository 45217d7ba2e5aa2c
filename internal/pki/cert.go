package pki

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"path/filepath"
	"time"
)

// The validity that [CA] and [Identity] give by default.
const (
	CAValidity       = 10 * 365 * 24 * time.Hour
	IdentityValidity = 2 * 365 * 24 * time.Hour
)

// backdate is how long before its making a certificate starts to be valid, so
// that a peer whose clock is behind believes it too.
const backdate = time.Hour

// Files of a certificate authority, in its folder.
const (
	caCertName = "ca.crt"
	caKeyName  = "ca.key"
)

// Validity is the time span of a certificate. The zero value means from now
// (an hour ago, for clocks that are behind) for the default time.
type Validity struct {
	// NotBefore is when it starts; zero for an hour before now.
	NotBefore time.Time
	// For is its length, counted from now when NotBefore is zero, else from
	// NotBefore; zero for the default.
	For time.Duration
}

func (v Validity) span(def time.Duration) (from, to time.Time, err error) {
	if v.For < 0 {
		return from, to, fmt.Errorf("validity of %v is negative", v.For)
	}
	if v.For == 0 {
		v.For = def
	}
	if !v.NotBefore.IsZero() {
		return v.NotBefore, v.NotBefore.Add(v.For), nil
	}
	now := time.Now()
	return now.Add(-backdate), now.Add(v.For), nil
}

// CA makes a certificate authority: ca.crt and, with mode 0600, ca.key in the
// folder dir, which is made if it is missing. Nothing is overwritten
// (fs.ErrExist). It returns the paths of the files.
func CA(dir string, v Validity) ([]string, error) {
	from, to, err := v.span(CAValidity)
	if err != nil {
		return nil, err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		Subject:               pkix.Name{CommonName: "tougw CA"},
		NotBefore:             from,
		NotAfter:              to,
		BasicConstraintsValid: true,
		IsCA:                  true,
		// It signs identities and no further authority.
		MaxPathLenZero: true,
		KeyUsage:       x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	return writePair(template, template, key, key, filepath.Join(dir, caCertName), filepath.Join(dir, caKeyName))
}

// Identity makes a certificate for name, signed by the authority in the folder
// caDir, and its key: NAME.crt and, with mode 0600, NAME.key in the folder out,
// which is made if it is missing. The certificate is good for both ends of an
// association. A certificate never outlives its authority: it ends with it at
// the latest. Nothing is overwritten (fs.ErrExist). It returns the paths of the
// files.
func Identity(name, caDir, out string, v Validity) ([]string, error) {
	if err := CheckName(name); err != nil {
		return nil, fmt.Errorf("name %q %w", name, err)
	}
	if name == "ca" && sameFolder(caDir, out) {
		return nil, errors.New(`name "ca" would collide with the files of the CA; choose another name or folder`)
	}
	from, to, err := v.span(IdentityValidity)
	if err != nil {
		return nil, err
	}
	ca, err := LoadCertificate(filepath.Join(caDir, caCertName), filepath.Join(caDir, caKeyName))
	if err != nil {
		return nil, err
	}
	if !ca.Leaf.IsCA {
		return nil, fmt.Errorf("%s is not the certificate of a CA", filepath.Join(caDir, caCertName))
	}
	if to.After(ca.Leaf.NotAfter) {
		to = ca.Leaf.NotAfter
	}
	if !from.Before(to) {
		return nil, fmt.Errorf("%s is valid until %s only", filepath.Join(caDir, caCertName), ca.Leaf.NotAfter.Format(time.RFC3339))
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	// The subject stays empty, which makes x509 mark the name extension as
	// critical (RFC 5280 section 4.2.1.6): nothing can fall back on the CN.
	template := &x509.Certificate{
		NotBefore:             from,
		NotAfter:              to,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		DNSNames:              []string{name},
	}
	return writePair(template, ca.Leaf, key, ca.PrivateKey, filepath.Join(out, name+".crt"), filepath.Join(out, name+".key"))
}

// writePair signs template and writes it and its key.
func writePair(template, parent *x509.Certificate, key *ecdsa.PrivateKey, signer any, certPath, keyPath string) ([]string, error) {
	// Without a serial number in the template, x509 draws one of 20 random bytes.
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	if err != nil {
		return nil, err
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	err = writeFiles(
		output{keyPath, 0o600, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER})},
		output{certPath, 0o644, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})},
	)
	if err != nil {
		return nil, err
	}
	return []string{certPath, keyPath}, nil
}

// sameFolder reports whether a and b name the same folder, as far as names tell.
func sameFolder(a, b string) bool {
	absA, errA := filepath.Abs(a)
	absB, errB := filepath.Abs(b)
	return errA == nil && errB == nil && absA == absB
}
