//! The TLS side of a connection string: which roots, which client certificate, which checks, with
//! rustls on ring. The checks themselves are in `verify`.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, version};

use super::Side;
use super::verify::{self, Trust, Verifier};
use crate::config::conninfo::{Conninfo, Host, Roots, SslMode, Tls};
use crate::error::{Error, Result};

/// Ready to encrypt any number of connections of one `Conninfo`.
pub(super) struct Setup {
    connector: TlsConnector,
}

/// None if no connection of `conninfo` can need TLS.
///
/// # Errors
/// Exit 3 or 4 by `side`: a certificate or key file that is missing, unreadable or malformed.
pub(super) fn setup(conninfo: &Conninfo, side: Side) -> Result<Option<Setup>> {
    let tls = &conninfo.tls;
    let tcp = conninfo.endpoints.iter().any(|one| one.hostaddr.is_some() || matches!(one.host, Host::Tcp(_)));
    if tls.mode == SslMode::Disable || !tcp {
        return Ok(None);
    }
    let cannot = |what: String| Error::new(side.exit(), format!("cannot use TLS with the {side} {conninfo}: {what}"));
    let provider = Arc::new(ring::default_provider());
    let trust = if tls.verifies_chain() { Some(trust(tls, &cannot)?) } else { None };
    let verifier = Verifier::new(trust, tls.mode == SslMode::VerifyFull, provider.clone());
    let versions = if tls.only_13 { &[&version::TLS13][..] } else { &[&version::TLS13, &version::TLS12][..] };
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .map_err(|err| Error::bug("set up TLS").cause(err))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier));
    let mut config = match &tls.cert {
        None => builder.with_no_client_auth(),
        Some(cert) => {
            let (chain, key) = client_certificate(cert, tls.key.as_deref(), &cannot)?;
            builder
                .with_client_auth_cert(chain, key)
                .map_err(|err| cannot(format!("{} does not go with its key", cert.display())).cause(err))?
        }
    };
    config.enable_sni = tls.sni;
    if tls.direct {
        config.alpn_protocols = vec![b"postgresql".to_vec()];
    }
    Ok(Some(Setup { connector: TlsConnector::from(Arc::new(config)) }))
}

impl Setup {
    /// The encrypted stream, and the server's certificate as channel binding data (RFC 5929).
    pub(super) async fn handshake(
        &self,
        stream: TcpStream,
        host: &str,
    ) -> io::Result<(TlsStream<TcpStream>, Option<Vec<u8>>)> {
        let name =
            ServerName::try_from(host.to_string()).map_err(|err| io::Error::new(io::ErrorKind::InvalidInput, err))?;
        let stream = self.connector.connect(name, stream).await?;
        let certificate = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
        let binding = certificate.and_then(|certificate| verify::end_point_binding(certificate));
        Ok((stream, binding))
    }
}

fn trust(tls: &Tls, cannot: &dyn Fn(String) -> Error) -> Result<Trust> {
    let mut trust = Trust::nobody();
    match &tls.roots {
        Roots::None => {
            return Err(cannot(format!("sslmode={} needs root certificates", tls.mode.name()))
                .hint("set sslrootcert to the file of the certificate authority (~/.postgresql/root.crt is the default),\nor to `system` for the ones of the operating system"));
        }
        Roots::System => {
            for certificate in rustls_native_certs::load_native_certs().certs {
                // One that cannot be read is one that is not trusted.
                let _ = trust.add(certificate);
            }
        }
        Roots::File(path) => {
            for certificate in certificates(path, cannot)? {
                trust
                    .add(certificate)
                    .map_err(|err| cannot(format!("a certificate in {} is not usable", path.display())).cause(err))?;
            }
        }
    }
    match trust.is_empty() {
        true => Err(cannot("no root certificate was found".into()).hint("check sslrootcert")),
        false => Ok(trust),
    }
}

fn certificates(path: &Path, cannot: &dyn Fn(String) -> Error) -> Result<Vec<CertificateDer<'static>>> {
    CertificateDer::pem_file_iter(path).and_then(|certificates| certificates.collect()).map_err(|err| {
        cannot(format!("certificate file {} cannot be read", path.display()))
            .cause(err)
            .hint("check sslrootcert and sslcert, and that this user may read those files")
    })
}

type ClientCertificate = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

fn client_certificate(cert: &Path, key: Option<&Path>, cannot: &dyn Fn(String) -> Error) -> Result<ClientCertificate> {
    let Some(key) = key else {
        return Err(cannot(format!("there is no key for the client certificate {}", cert.display()))
            .hint("set sslkey, or put the key in ~/.postgresql/postgresql.key"));
    };
    let meta = std::fs::metadata(key)
        .map_err(|err| cannot(format!("key file {} cannot be read", key.display())).cause(err))?;
    // libpq's rule: ours and private, or root's and readable by the group.
    let allowed = if meta.uid() == 0 { 0o640 } else { 0o600 };
    if meta.mode() & 0o777 & !allowed != 0 {
        return Err(cannot(format!("others may read the key file {}", key.display()))
            .hint(format!("chmod 0600 {}", key.display())));
    }
    let chain = certificates(cert, cannot)?;
    let key = PrivateKeyDer::from_pem_file(key)
        .map_err(|err| cannot(format!("key file {} cannot be read", key.display())).cause(err))?;
    Ok((chain, key))
}
