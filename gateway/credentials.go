package gateway

import (
	"crypto/tls"
	"crypto/x509"

	"github.com/tougw/tougw/config"
	"github.com/tougw/tougw/internal/pki"
)

// credentials are the loaded keys of the configuration.
type credentials struct {
	certificate *tls.Certificate // nil without
	roots       *x509.CertPool
	pskName     string // our own, when dialling with a pre-shared key
	psk         []byte
	psks        map[string][]byte // those of peers, by identity
}

func loadCredentials(id *config.Identity) (credentials, error) {
	var c credentials
	if id.HasCert() {
		cert, err := pki.LoadCertificate(id.Cert, id.Key)
		if err != nil {
			return c, err
		}
		c.certificate = &cert
		if c.roots, err = pki.LoadRoots(id.CA); err != nil {
			return c, err
		}
	}
	if id.PSK != nil {
		key, err := pki.LoadPSK(id.PSK.KeyFile)
		if err != nil {
			return c, err
		}
		c.pskName, c.psk = id.PSK.Identity, key
	}
	if id.PSKDir != "" {
		keys, err := pki.LoadPSKDir(id.PSKDir)
		if err != nil {
			return c, err
		}
		c.psks = keys
	}
	return c, nil
}
