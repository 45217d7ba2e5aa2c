package pki

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
)

// LoadCertificate loads the PEM certificate of certFile, with its chain if the
// file has one, and the PEM private key of keyFile, which must be that of the
// certificate and accessible to its owner alone. The Leaf of the result is set.
// Errors name the file that they are about. The time is not checked: a
// certificate may have expired.
func LoadCertificate(certFile, keyFile string) (tls.Certificate, error) {
	certPEM, err := loadCertificates(certFile)
	if err != nil {
		return tls.Certificate{}, err
	}
	if err := CheckKey(keyFile); err != nil {
		return tls.Certificate{}, err
	}
	keyPEM, err := readFile(keyFile, true)
	if err != nil {
		return tls.Certificate{}, err
	}
	cert, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		// Both parsed alone, so that it is the pair.
		return tls.Certificate{}, fmt.Errorf("%s is not the key of %s: %w", keyFile, certFile, err)
	}
	if cert.Leaf == nil {
		// GODEBUG=x509keypairleaf=0 leaves it out.
		if cert.Leaf, err = x509.ParseCertificate(cert.Certificate[0]); err != nil {
			return tls.Certificate{}, fmt.Errorf("%s: %w", certFile, err)
		}
	}
	return cert, nil
}

// CheckCertificate says what is wrong with the certificate file alone, or
// returns nil.
func CheckCertificate(certFile string) error {
	_, err := loadCertificates(certFile)
	return err
}

// CheckKey says what is wrong with the key file alone, or returns nil.
func CheckKey(keyFile string) error {
	b, err := readFile(keyFile, true)
	if err != nil {
		return err
	}
	for rest := b; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			return fmt.Errorf("%s has no PEM private key", keyFile)
		}
		switch block.Type {
		case "PRIVATE KEY":
			_, err = x509.ParsePKCS8PrivateKey(block.Bytes)
		case "EC PRIVATE KEY":
			_, err = x509.ParseECPrivateKey(block.Bytes)
		case "RSA PRIVATE KEY":
			_, err = x509.ParsePKCS1PrivateKey(block.Bytes)
		case "ENCRYPTED PRIVATE KEY":
			return fmt.Errorf("%s is encrypted; only plain keys can be used", keyFile)
		default:
			// openssl puts a block with the curve's parameters before the key.
			continue
		}
		if err != nil {
			return fmt.Errorf("%s: %w", keyFile, err)
		}
		return nil
	}
}

// LoadRoots loads the PEM certificates of caFile as authorities.
func LoadRoots(caFile string) (*x509.CertPool, error) {
	b, err := loadCertificates(caFile)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(b) {
		return nil, fmt.Errorf("%s has no certificate that can be used", caFile)
	}
	return pool, nil
}

// loadCertificates reads a file with at least one PEM certificate, all of which
// parse.
func loadCertificates(path string) ([]byte, error) {
	b, err := readFile(path, false)
	if err != nil {
		return nil, err
	}
	n := 0
	for rest := b; ; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil {
			break
		}
		if block.Type != "CERTIFICATE" {
			continue
		}
		if _, err := x509.ParseCertificate(block.Bytes); err != nil {
			return nil, fmt.Errorf("%s: certificate %d: %w", path, n+1, err)
		}
		n++
	}
	if n == 0 {
		return nil, fmt.Errorf("%s has no PEM certificate", path)
	}
	return b, nil
}
