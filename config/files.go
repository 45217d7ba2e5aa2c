package config

import (
	"crypto/x509"
	"errors"
	"time"

	"github.com/tougw/tougw/internal/pki"
)

// checkFiles makes the part of the third pass that looks at the files which
// the configuration names.
func (p *parser) checkFiles() {
	r, id := &p.raw.identity, &p.cfg.Identity
	p.checkPair()
	if r.ca.ok() {
		if _, err := pki.LoadRoots(id.CA); err != nil {
			p.errorf(&r.ca.at, "%v", err)
		}
	}
	if r.psk.keyFile.ok() {
		if _, err := pki.LoadPSK(id.PSK.KeyFile); err != nil {
			p.errorf(&r.psk.keyFile.at, "%v", err)
		}
	}
	if r.pskDir.ok() {
		if _, err := pki.LoadPSKDir(id.PSKDir); err != nil {
			p.eachError(&r.pskDir.at, err)
		}
	}
}

// eachError reports every one of joined errors.
func (p *parser) eachError(a *at, err error) {
	var many interface{ Unwrap() []error }
	if !errors.As(err, &many) {
		p.errorf(a, "%v", err)
		return
	}
	for _, err := range many.Unwrap() {
		p.errorf(a, "%v", err)
	}
}

// checkPair looks at the certificate and its key: first each alone, so that
// the defects of both are shown, then together.
func (p *parser) checkPair() {
	r, id := &p.raw.identity, &p.cfg.Identity
	if r.cert.ok() {
		if err := pki.CheckCertificate(id.Cert); err != nil {
			p.errorf(&r.cert.at, "%v", err)
		}
	}
	if r.key.ok() {
		if err := pki.CheckKey(id.Key); err != nil {
			p.errorf(&r.key.at, "%v", err)
		}
	}
	if !r.cert.ok() || !r.key.ok() {
		return
	}
	cert, err := pki.LoadCertificate(id.Cert, id.Key)
	if err != nil {
		p.errorf(&r.key.at, "%v", err)
		return
	}
	p.warnCertificate(cert.Leaf, time.Now())
}

// warnCertificate warns of what makes peers refuse the certificate. The time is
// no error: clocks are wrong at boot, and peers judge by theirs.
func (p *parser) warnCertificate(leaf *x509.Certificate, now time.Time) {
	a := &p.raw.identity.cert.at
	switch {
	case now.After(leaf.NotAfter):
		p.warnf(a, "the certificate expired on %s", leaf.NotAfter.Format(time.DateTime))
	case now.Before(leaf.NotBefore):
		p.warnf(a, "the certificate is valid from %s only", leaf.NotBefore.Format(time.DateTime))
	}
	if len(leaf.DNSNames) == 0 {
		p.warnf(a, "the certificate has no DNS name: it proves no identity (a CN does not count)")
	}
	if p.raw.listen.given() && !hasUsage(leaf, x509.ExtKeyUsageServerAuth) {
		p.warnf(a, "the certificate is not for servers, but there is listen")
	}
	if p.raw.peers.given() && !hasUsage(leaf, x509.ExtKeyUsageClientAuth) {
		p.warnf(a, "the certificate is not for clients, but there are peers")
	}
}

// hasUsage reports whether the certificate is good for usage; one without any
// list is good for all.
func hasUsage(c *x509.Certificate, usage x509.ExtKeyUsage) bool {
	if len(c.ExtKeyUsage) == 0 && len(c.UnknownExtKeyUsage) == 0 {
		return true
	}
	for _, u := range c.ExtKeyUsage {
		if u == usage || u == x509.ExtKeyUsageAny {
			return true
		}
	}
	return false
}
