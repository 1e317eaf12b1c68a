//! TLS with OpenSSL, set up and verified as libpq does.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use openssl::error::ErrorStack;
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::{PKey, Private};
use openssl::ssl::{
    Error as SslError, Ssl, SslContext, SslContextBuilder, SslFiletype, SslMethod, SslRef, SslVerifyMode,
};
use openssl::x509::X509;
use openssl::x509::X509VerifyResult;
use openssl::x509::store::X509Lookup;
use openssl::x509::verify::X509VerifyFlags;

use super::error::ConnectProblem;
use super::peer_name;
use crate::conninfo::{Encryption, Negotiation, SslMode, TrustedRoots};

/// PostgreSQL's protocol name in ALPN, preceded by its length.
const ALPN: &[u8] = b"\x0apostgresql";

/// A TLS session for a server of this name, ready for the handshake.
pub(super) fn session(encryption: &Encryption, host: Option<&str>) -> Result<Ssl, ConnectProblem> {
    let mut context = SslContext::builder(SslMethod::tls_client()).map_err(ssl_error)?;
    context.set_min_proto_version(encryption.min_version).map_err(ssl_error)?;
    context.set_max_proto_version(encryption.max_version).map_err(ssl_error)?;
    context.set_alpn_protos(ALPN).map_err(ssl_error)?;
    let verify = trust(&mut context, encryption)?;
    context.set_verify(verify);
    add_client_certificate(&mut context, encryption)?;
    let mut ssl = Ssl::new(&context.build()).map_err(ssl_error)?;
    if let Some(name) = host.filter(|host| encryption.server_name && is_dns_name(host)) {
        ssl.set_hostname(name).map_err(ssl_error)?;
    }
    Ok(ssl)
}

/// Checks the result of the handshake. Returns the server's certificate.
pub(super) fn check(
    ssl: &SslRef,
    encryption: &Encryption,
    host: Option<&str>,
) -> Result<Option<X509>, ConnectProblem> {
    if encryption.negotiation == Negotiation::Direct && ssl.selected_alpn_protocol() != Some(&ALPN[1..]) {
        return Err(ConnectProblem::NoAlpn);
    }
    let certificate = ssl.peer_certificate();
    if encryption.mode == SslMode::VerifyFull {
        let certificate = certificate.as_ref().ok_or(ConnectProblem::NoCertificateName)?;
        peer_name::check(certificate, host)?;
    }
    Ok(certificate)
}

/// The channel binding data `tls-server-end-point` (RFC 5929): a hash of the certificate. `None` if its signature
/// algorithm has no single hash function, as Ed25519.
pub(super) fn end_point(certificate: &X509) -> Option<Vec<u8>> {
    let algorithms = certificate.signature_algorithm().object().nid().signature_algorithms()?;
    let digest = match algorithms.digest {
        Nid::MD5 | Nid::SHA1 => MessageDigest::sha256(),
        other => MessageDigest::from_nid(other)?,
    };
    certificate.digest(digest).ok().map(|digest| digest.to_vec())
}

/// The error of a handshake, or of the first read after it (a rejected client certificate).
pub(super) fn handshake_error(error: &SslError, result: X509VerifyResult) -> ConnectProblem {
    if let Some(stack) = error.ssl_error().filter(|stack| !stack.errors().is_empty()) {
        let mut reason = reason_of(stack);
        if result != X509VerifyResult::OK {
            reason = format!("{reason}: {}", result.error_string());
        }
        return ConnectProblem::Ssl { reason };
    }
    let error = error.io_error().filter(|error| error.kind() != ErrorKind::UnexpectedEof);
    ConnectProblem::SslSystem { reason: error.map_or("EOF detected".to_owned(), ToString::to_string) }
}

/// Loads trusted roots and revocation lists. Without roots, nothing is verified; `verify-ca` and `verify-full` do not
/// accept that.
fn trust(context: &mut SslContextBuilder, encryption: &Encryption) -> Result<SslVerifyMode, ConnectProblem> {
    let must_verify = encryption.mode >= SslMode::VerifyCa;
    let path = match &encryption.roots {
        TrustedRoots::System => {
            context.set_default_verify_paths().map_err(ssl_error)?;
            return Ok(SslVerifyMode::PEER);
        }
        TrustedRoots::NoHome if must_verify => return Err(ConnectProblem::NoHome),
        TrustedRoots::NoHome => return Ok(SslVerifyMode::NONE),
        TrustedRoots::File(path) if fs::metadata(path).is_ok() => path,
        TrustedRoots::File(path) if must_verify => {
            return Err(ConnectProblem::NoRootFile { path: path.clone() });
        }
        TrustedRoots::File(_) => return Ok(SslVerifyMode::NONE),
    };
    context.set_ca_file(path).map_err(|stack| file_error("read root certificate file", path, &stack))?;
    if add_revocations(context, encryption).map_err(ssl_error)? {
        let flags = X509VerifyFlags::CRL_CHECK | X509VerifyFlags::CRL_CHECK_ALL;
        context.cert_store_mut().set_flags(flags).map_err(ssl_error)?;
    }
    Ok(SslVerifyMode::PEER)
}

/// Loads certificate revocation lists. Returns whether there are any; as in libpq, a missing file is no error.
fn add_revocations(context: &mut SslContextBuilder, encryption: &Encryption) -> Result<bool, ErrorStack> {
    let mut found = false;
    if let Some(file) = &encryption.crl {
        let lookup = context.cert_store_mut().add_lookup(X509Lookup::file())?;
        match lookup.load_crl_file(&file.path, SslFiletype::PEM) {
            Ok(_) => found = true,
            Err(stack) if file.given => {
                let (path, reason) = (file.path.display(), reason_of(&stack));
                tracing::warn!("could not read certificate revocation list \"{path}\": {reason}");
            }
            Err(_) => {}
        }
    }
    if let Some(dir) = encryption.crl_dir.as_deref().and_then(Path::to_str) {
        context.cert_store_mut().add_lookup(X509Lookup::hash_dir())?.add_dir(dir, SslFiletype::PEM)?;
        found = true;
    }
    Ok(found)
}

/// Loads the client certificate, if there is one, and its private key.
fn add_client_certificate(
    context: &mut SslContextBuilder,
    encryption: &Encryption,
) -> Result<(), ConnectProblem> {
    let Some(path) = &encryption.cert else { return Ok(()) };
    match fs::metadata(path) {
        Ok(_) => {}
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => return Ok(()),
        Err(error) => {
            let (path, reason) = (path.clone(), error.to_string());
            return Err(ConnectProblem::SslFile { doing: "open certificate file", path, reason });
        }
    }
    let loaded = context.set_certificate_chain_file(path);
    loaded.map_err(|stack| file_error("read certificate file", path, &stack))?;

    let Some(path) = &encryption.key else { return Ok(()) };
    let key = read_key(path, encryption)?;
    let mismatch =
        |stack: ErrorStack| ConnectProblem::KeyMismatch { path: path.clone(), reason: reason_of(&stack) };
    context.set_private_key(&key).map_err(|stack| file_error("load private key file", path, &stack))?;
    context.check_private_key().map_err(mismatch)
}

/// Reads a private key, in PEM or DER, decrypted with `sslpassword` if need be. Other users must not have access to it.
fn read_key(path: &Path, encryption: &Encryption) -> Result<PKey<Private>, ConnectProblem> {
    let failed = |doing, reason| ConnectProblem::SslFile { doing, path: path.to_owned(), reason };
    let metadata = fs::metadata(path).map_err(|error| match error.kind() {
        ErrorKind::NotFound => ConnectProblem::NoKey { path: path.to_owned() },
        _ => failed("stat private key file", error.to_string()),
    })?;
    if !metadata.is_file() {
        return Err(ConnectProblem::KeyNotFile { path: path.to_owned() });
    }
    // A file owned by root may be readable by its group.
    let closed = if metadata.uid() == 0 { 0o037 } else { 0o077 };
    if metadata.mode() & closed != 0 {
        return Err(ConnectProblem::KeyAccess { path: path.to_owned() });
    }
    let bytes = fs::read(path).map_err(|error| failed("load private key file", error.to_string()))?;
    let password = encryption.key_password.as_ref().map_or(&b""[..], |password| password.expose());
    // Passing a password, even an empty one, keeps OpenSSL from prompting at the terminal.
    let key = PKey::private_key_from_pem_passphrase(&bytes, password).or_else(|stack| {
        let der = PKey::private_key_from_der(&bytes);
        der.or_else(|_| PKey::private_key_from_pkcs8_passphrase(&bytes, password)).map_err(|_| stack)
    });
    key.map_err(|stack| failed("load private key file", reason_of(&stack)))
}

/// Whether the host may be sent as server name (SNI): names only, no addresses.
fn is_dns_name(host: &str) -> bool {
    !host.is_empty() && !host.contains(':') && !host.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.')
}

fn file_error(doing: &'static str, path: &Path, stack: &ErrorStack) -> ConnectProblem {
    ConnectProblem::SslFile { doing, path: path.to_owned(), reason: reason_of(stack) }
}

fn ssl_error(stack: ErrorStack) -> ConnectProblem {
    ConnectProblem::Ssl { reason: reason_of(&stack) }
}

/// The reason of OpenSSL's first error, as libpq reports it.
fn reason_of(stack: &ErrorStack) -> String {
    match stack.errors().first() {
        Some(error) => match error.reason() {
            Some(reason) => reason.to_owned(),
            None => format!("SSL error code {}", error.code()),
        },
        None => "no SSL error reported".to_owned(),
    }
}
