//! Which server certificates are trusted: those of an authority, and those that are configured themselves.
//!
//! The usual private registry has a certificate made with `openssl req -x509`: self-signed, and marked as an authority.
//! The rules of the web do not let an authority be a server, so rustls refuses it even from a user who named this very
//! certificate. Docker, podman and skopeo take it, and so do we.
//!
//! # Invariants
//!
//! - **One refusal is overruled, no other.** A certificate is taken in spite of being an authority's, if it is byte for
//!   byte a configured one, within its validity, and made out to the host.
//! - **The private key is always proven.** Signatures go to the ordinary verifier.

use std::{sync::Arc, time::Duration};

use rustls::{
    CertificateError, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
    client::{
        VerifierBuilderError, WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_name,
    },
    crypto::CryptoProvider,
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::ParsedCertificate,
};

/// Judges the certificate of a server.
#[derive(Debug)]
pub(super) struct Verifier {
    ordinary: Arc<WebPkiServerVerifier>,
    /// The certificates that the user named for this registry; not those of the system.
    configured: Vec<CertificateDer<'static>>,
}

impl Verifier {
    /// Trusts what `roots` signed, and each of `configured` itself.
    pub(super) fn new(
        roots: RootCertStore,
        configured: Vec<CertificateDer<'static>>,
        provider: Arc<CryptoProvider>,
    ) -> Result<Self, VerifierBuilderError> {
        let builder = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider);
        Ok(Self { ordinary: builder.build()?, configured })
    }

    /// Says whether the ordinary verifier looks at the dates of `certificate` before it asks whether it is an authority's: only
    /// then does that refusal tell that the dates are right. It does, but promises nothing, so it is asked about a day
    /// when every certificate has expired.
    fn dates_come_first(&self, certificate: &CertificateDer<'_>, name: &ServerName<'_>) -> bool {
        let never = UnixTime::since_unix_epoch(Duration::MAX);
        let answer = self.ordinary.verify_server_cert(certificate, &[], name, &[], never);
        matches!(answer, Err(Error::InvalidCertificate(CertificateError::ExpiredContext { .. })))
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let answer =
            self.ordinary.verify_server_cert(certificate, intermediates, name, ocsp_response, now);
        match answer {
            Err(refusal)
                if is_for_an_authority(&refusal)
                    && self.configured.contains(certificate)
                    && self.dates_come_first(certificate, name) =>
            {
                verify_server_name(&ParsedCertificate::try_from(certificate)?, name)?;
                Ok(ServerCertVerified::assertion())
            }
            answer => answer,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.ordinary.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.ordinary.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.ordinary.supported_verify_schemes()
    }
}

/// Says whether a certificate was refused for being an authority's. rustls has no variant for this and passes on the error of
/// webpki, whose type it does not export; a changed name there lets nobody in.
fn is_for_an_authority(refusal: &Error) -> bool {
    match refusal {
        Error::InvalidCertificate(CertificateError::Other(error)) => {
            error.0.to_string() == "CaUsedAsEndEntity"
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use rustls::{crypto::aws_lc_rs::default_provider, pki_types::pem::PemObject as _};

    use super::*;

    /// The certificates of `testdata/registry/certificates` are valid from November 2026 to November 2036, and but for the
    /// authority's own made out to `registry.example.com` and 192.0.2.1.
    const YEAR_2030: u64 = 1_893_456_000;
    const YEAR_2020: u64 = 1_577_836_800;
    const YEAR_2040: u64 = 2_208_988_800;

    fn certificate(name: &str) -> CertificateDer<'static> {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../testdata/registry/certificates");
        CertificateDer::from_pem_file(format!("{folder}/{name}.pem")).expect("the fixture is PEM")
    }

    /// Shows `shown` as the certificate of `host`, to a user with `roots`, who named `configured`.
    fn verify(
        roots: &[&str],
        configured: &[&str],
        shown: &str,
        host: &str,
        seconds: u64,
    ) -> Result<(), String> {
        let mut store = RootCertStore::empty();
        store.add_parsable_certificates(roots.iter().map(|it| certificate(it)));
        let configured = configured.iter().map(|it| certificate(it)).collect();
        let verifier = Verifier::new(store, configured, Arc::new(default_provider()))
            .expect("there are authorities");
        let name = ServerName::try_from(host.to_owned()).expect("the name is valid");
        let now = UnixTime::since_unix_epoch(Duration::from_secs(seconds));
        let answer = verifier.verify_server_cert(&certificate(shown), &[], &name, &[], now);
        answer.map(|_| ()).map_err(|error| error.to_string())
    }

    fn refusal(roots: &[&str], configured: &[&str], shown: &str, host: &str, now: u64) -> String {
        verify(roots, configured, shown, host, now).expect_err("it is not to be trusted")
    }

    #[test]
    fn a_configured_certificate_is_trusted_for_its_names() {
        let own = &["self-signed"];
        for host in ["registry.example.com", "192.0.2.1"] {
            assert_eq!(verify(own, own, "self-signed", host, YEAR_2030), Ok(()), "{host}");
        }
        for host in ["example.com", "other.example.com", "192.0.2.2"] {
            let refusal = refusal(own, own, "self-signed", host, YEAR_2030);
            assert!(refusal.contains("not valid for name"), "{host}: {refusal}");
        }
    }

    #[test]
    fn a_configured_certificate_is_trusted_while_it_is_valid() {
        let own = &["self-signed"];
        let early = refusal(own, own, "self-signed", "registry.example.com", YEAR_2020);
        assert!(early.contains("not valid yet"), "{early}");
        let late = refusal(own, own, "self-signed", "registry.example.com", YEAR_2040);
        assert!(late.contains("expired"), "{late}");
    }

    #[test]
    fn an_authority_that_is_not_configured_itself_is_no_server() {
        let all = &["self-signed", "same-names", "authority"];
        for (configured, shown) in [
            // The same names, another key.
            (&["same-names"][..], "self-signed"),
            // The system trusts it, which the user did not say of this registry.
            (&[], "self-signed"),
            // An authority that a configured one vouches for.
            (&["authority"], "authority-below"),
        ] {
            let refusal = refusal(all, configured, shown, "registry.example.com", YEAR_2030);
            assert!(refusal.contains("CaUsedAsEndEntity"), "{shown}: {refusal}");
        }
        let refusal =
            refusal(&["authority"], &["authority"], "authority", "registry.example.com", YEAR_2030);
        assert!(refusal.contains("not valid for name"), "{refusal}");
    }

    #[test]
    fn authorities_are_trusted_as_ever() {
        let host = "registry.example.com";
        let own = &["authority"];
        assert_eq!(verify(own, own, "issued", host, YEAR_2030), Ok(()));
        assert_eq!(verify(own, &[], "issued", host, YEAR_2030), Ok(()));
        for (roots, host, now, expected) in [
            (&["authority"], "example.com", YEAR_2030, "not valid for name"),
            (&["authority"], host, YEAR_2040, "expired"),
            (&["self-signed"], host, YEAR_2030, "UnknownIssuer"),
        ] {
            // To name a certificate that is no authority's changes nothing.
            let refusal = refusal(roots, &["issued"], "issued", host, now);
            assert!(refusal.contains(expected), "{refusal}");
        }
    }
}
