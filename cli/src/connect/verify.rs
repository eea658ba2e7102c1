//! The checks on a server's certificate that libpq's sslmodes ask for. Where nothing is to be verified
//! the handshake must still prove possession of the key, as far as the certificate can be read.

use std::sync::Arc;

use sha2::{Digest, Sha256, Sha384, Sha512};
use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use tokio_rustls::rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use tokio_rustls::rustls::server::ParsedCertificate;
use tokio_rustls::rustls::{CertificateError, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use x509_cert::Certificate;
use x509_cert::der::Decode;
use x509_cert::der::oid::ObjectIdentifier;
use x509_cert::der::oid::db::rfc4519::COMMON_NAME;
use x509_cert::der::oid::db::rfc5280::ID_CE_SUBJECT_ALT_NAME;
use x509_cert::der::oid::db::rfc5912::{
    ECDSA_WITH_SHA_256, ECDSA_WITH_SHA_384, ECDSA_WITH_SHA_512, SHA_1_WITH_RSA_ENCRYPTION, SHA_256_WITH_RSA_ENCRYPTION,
    SHA_384_WITH_RSA_ENCRYPTION, SHA_512_WITH_RSA_ENCRYPTION,
};

/// What a server's certificate may lead to.
#[derive(Debug)]
pub(super) struct Trust {
    anchors: RootCertStore,
    /// The same certificates as they are. A server whose own certificate is among them is trusted, as
    /// with OpenSSL: the manual's recipe for a self-signed one gives a CA certificate, which no
    /// verifier of chains takes for a server's.
    own: Vec<CertificateDer<'static>>,
}

impl Trust {
    pub(super) fn nobody() -> Trust {
        Trust { anchors: RootCertStore::empty(), own: Vec::new() }
    }
    pub(super) fn add(&mut self, certificate: CertificateDer<'static>) -> Result<(), Error> {
        self.anchors.add(certificate.clone())?;
        self.own.push(certificate);
        Ok(())
    }
    pub(super) fn is_empty(&self) -> bool {
        self.own.is_empty()
    }
}

#[derive(Debug)]
pub(super) struct Verifier {
    /// None verifies nothing (`allow`, `prefer`, `require`).
    trust: Option<Trust>,
    /// The name too (`verify-full`).
    name: bool,
    provider: Arc<CryptoProvider>,
}

impl Verifier {
    pub(super) fn new(trust: Option<Trust>, name: bool, provider: Arc<CryptoProvider>) -> Verifier {
        Verifier { trust, name, provider }
    }

    /// webpki reads only version 3 certificates, and OpenSSL makes version 1 by default up to 3.1.
    fn cannot_be_checked(&self, certificate: &CertificateDer<'_>) -> bool {
        self.trust.is_none() && ParsedCertificate::try_from(certificate).is_err()
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let Some(trust) = &self.trust else { return Ok(ServerCertVerified::assertion()) };
        let parsed = ParsedCertificate::try_from(end_entity)?;
        if trust.own.contains(end_entity) {
            in_its_time(end_entity, now)?;
        } else {
            let algorithms = self.provider.signature_verification_algorithms.all;
            verify_server_cert_signed_by_trust_anchor(&parsed, &trust.anchors, intermediates, now, algorithms)?;
        }
        if self.name
            && let Err(err) = verify_server_name(&parsed, server_name)
            && !common_name_fits(end_entity, server_name)
        {
            return Err(err);
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        if self.cannot_be_checked(certificate) {
            return Ok(HandshakeSignatureValid::assertion());
        }
        verify_tls12_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        if self.cannot_be_checked(certificate) {
            return Ok(HandshakeSignatureValid::assertion());
        }
        verify_tls13_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

fn read(certificate: &CertificateDer<'_>) -> Result<Certificate, Error> {
    Certificate::from_der(certificate).map_err(|_| CertificateError::BadEncoding.into())
}

fn in_its_time(certificate: &CertificateDer<'_>, now: UnixTime) -> Result<(), Error> {
    let validity = read(certificate)?.tbs_certificate.validity;
    if now.as_secs() < validity.not_before.to_unix_duration().as_secs() {
        return Err(CertificateError::NotValidYet.into());
    }
    if now.as_secs() > validity.not_after.to_unix_duration().as_secs() {
        return Err(CertificateError::Expired.into());
    }
    Ok(())
}

/// As libpq (manual 34.19.1): the common name counts only where there is no subjectAltName.
fn common_name_fits(certificate: &CertificateDer<'_>, wanted: &ServerName<'_>) -> bool {
    let (Ok(certificate), ServerName::DnsName(wanted)) = (read(certificate), wanted) else { return false };
    let tbs = &certificate.tbs_certificate;
    if tbs.extensions.iter().flatten().any(|extension| extension.extn_id == ID_CE_SUBJECT_ALT_NAME) {
        return false;
    }
    let parts = tbs.subject.0.iter().flat_map(|part| part.0.iter());
    let mut names =
        parts.filter(|part| part.oid == COMMON_NAME).filter_map(|part| str::from_utf8(part.value.value()).ok());
    let Some(name) = names.next_back() else { return false };
    let (name, wanted) = (name.to_ascii_lowercase(), wanted.as_ref().to_ascii_lowercase());
    match name.strip_prefix("*.") {
        // A star stands for one label, not for dots.
        Some(domain) => wanted.split_once('.').is_some_and(|(label, rest)| !label.is_empty() && rest == domain),
        None => name == wanted,
    }
}

/// tls-server-end-point of RFC 5929: the certificate's digest, by the hash of its signature. None if
/// that signature has no hash of its own (Ed25519), so that plain SCRAM is used.
pub(super) fn end_point_binding(certificate: &CertificateDer<'_>) -> Option<Vec<u8>> {
    const SHA_256: [ObjectIdentifier; 3] = [SHA_1_WITH_RSA_ENCRYPTION, SHA_256_WITH_RSA_ENCRYPTION, ECDSA_WITH_SHA_256];
    const SHA_384: [ObjectIdentifier; 2] = [SHA_384_WITH_RSA_ENCRYPTION, ECDSA_WITH_SHA_384];
    const SHA_512: [ObjectIdentifier; 2] = [SHA_512_WITH_RSA_ENCRYPTION, ECDSA_WITH_SHA_512];
    let signature = read(certificate).ok()?.signature_algorithm.oid;
    let bytes: &[u8] = certificate;
    match signature {
        oid if SHA_256.contains(&oid) => Some(Sha256::digest(bytes).to_vec()),
        oid if SHA_384.contains(&oid) => Some(Sha384::digest(bytes).to_vec()),
        oid if SHA_512.contains(&oid) => Some(Sha512::digest(bytes).to_vec()),
        _ => None,
    }
}
