//! SSH keys in files, served as an agent serves them: listed, and made to sign.
//!
//! Ed25519, ECDSA on the three curves of NIST, and RSA with SHA-2 are known, in OpenSSH's own format and in PEM. Keys with a passphrase are refused:
//! there is nobody to ask for it.
//!
//! # Source
//!
//! OpenSSH's `PROTOCOL.key`; RFC 8017, appendix A.1; draft-miller-ssh-agent, section 3; RFC 8332 for RSA with SHA-2.

use std::{fs::File, io::Read, path::Path};

use aws_lc_rs::{
    rand::SystemRandom,
    signature::{
        self, ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING,
        ECDSA_P521_SHA512_FIXED_SIGNING, EcdsaKeyPair, EcdsaSigningAlgorithm, Ed25519KeyPair,
        KeyPair, RsaKeyPair,
    },
};
use base64::{Engine, engine::general_purpose::STANDARD};

/// No file with a key is longer.
const MAX_FILE: u64 = 1 << 20;
const MAGIC: &[u8] = b"openssh-key-v1\0";

/// Messages of the agent's protocol.
const IDENTITIES_ANSWER: u8 = 12;
const SIGN_RESPONSE: u8 = 14;
/// What a client says that it wants of RSA.
const RSA_SHA2_256: u32 = 2;
const RSA_SHA2_512: u32 = 4;

/// The curves, as SSH calls them.
const CURVES: [(&str, &EcdsaSigningAlgorithm); 3] = [
    ("nistp256", &ECDSA_P256_SHA256_FIXED_SIGNING),
    ("nistp384", &ECDSA_P384_SHA384_FIXED_SIGNING),
    ("nistp521", &ECDSA_P521_SHA512_FIXED_SIGNING),
];

/// Private keys, in the order in which they were given.
#[derive(Debug)]
pub struct SshKeys(Vec<Identity>);

#[derive(Debug)]
struct Identity {
    key: PrivateKey,
    /// The public key as SSH writes it.
    public: Vec<u8>,
    comment: Vec<u8>,
}

#[derive(Debug)]
enum PrivateKey {
    Ed25519(Ed25519KeyPair),
    Ecdsa(&'static str, EcdsaKeyPair),
    Rsa(RsaKeyPair),
}

/// Why a file is no key that can be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// It cannot be read.
    #[error("cannot read key `{path}`")]
    Read {
        /// The file.
        path: String,
        /// The cause.
        source: std::io::Error,
    },
    /// Only who knows the passphrase can use it.
    #[error("key `{path}` is protected by a passphrase")]
    Encrypted {
        /// The file.
        path: String,
    },
    /// It is something else, or broken.
    #[error("`{path}` is no private key that can be used: {problem}")]
    Malformed {
        /// The file.
        path: String,
        /// What is wrong.
        problem: &'static str,
    },
}

impl KeyError {
    /// What to do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Read { .. } => "`--ssh ID=FILE` names a private key or the socket of an agent",
            Self::Encrypted { .. } => {
                "add the key to an agent, which asks for the passphrase: `eval $(ssh-agent); ssh-add KEY`"
            }
            Self::Malformed { .. } => {
                "known are Ed25519, ECDSA and RSA keys as `ssh-keygen` writes them, or in PEM"
            }
        }
    }
}

/// What stands in a file.
enum Problem {
    Encrypted,
    Malformed(&'static str),
}

impl From<&'static str> for Problem {
    fn from(problem: &'static str) -> Self {
        Self::Malformed(problem)
    }
}

impl SshKeys {
    /// Reads keys from files.
    ///
    /// # Errors
    ///
    /// [`KeyError`] for the first that cannot be used.
    pub fn read<P: AsRef<Path>>(paths: &[P]) -> Result<Self, KeyError> {
        let keys = paths.iter().map(|path| {
            let path = path.as_ref();
            let shown = path.display().to_string();
            let mut text = Vec::new();
            File::open(path)
                .and_then(|it| it.take(MAX_FILE).read_to_end(&mut text))
                .map_err(|source| KeyError::Read { path: shown.clone(), source })?;
            identity(&text, path).map_err(|problem| match problem {
                Problem::Encrypted => KeyError::Encrypted { path: shown },
                Problem::Malformed(problem) => KeyError::Malformed { path: shown, problem },
            })
        });
        Ok(Self(keys.collect::<Result<_, _>>()?))
    }

    /// The message that lists the public keys.
    pub(super) fn list(&self) -> Vec<u8> {
        let mut out = vec![IDENTITIES_ANSWER];
        out.extend_from_slice(&u32::try_from(self.0.len()).unwrap_or(0).to_be_bytes());
        for identity in &self.0 {
            put(&mut out, &identity.public);
            put(&mut out, &identity.comment);
        }
        out
    }

    /// Answers a request to sign, without its first byte. Nothing if there is no such key, or it cannot sign in the way asked for.
    pub(super) fn sign(&self, request: &[u8]) -> Option<Vec<u8>> {
        let mut request = Reader(request);
        let (public, data, flags) = (request.text()?, request.text()?, request.number()?);
        let identity = self.0.iter().find(|it| it.public == public)?;
        let signature = identity.key.sign(data, flags)?;
        let mut out = vec![SIGN_RESPONSE];
        put(&mut out, &signature);
        Some(out)
    }
}

impl PrivateKey {
    /// The public key as SSH writes it.
    fn public(&self) -> Result<Vec<u8>, Problem> {
        let mut out = Vec::new();
        match self {
            Self::Ed25519(key) => {
                put(&mut out, b"ssh-ed25519");
                put(&mut out, key.public_key().as_ref());
            }
            Self::Ecdsa(curve, key) => {
                put(&mut out, format!("ecdsa-sha2-{curve}").as_bytes());
                put(&mut out, curve.as_bytes());
                put(&mut out, key.public_key().as_ref());
            }
            Self::Rsa(key) => {
                let (modulus, exponent) =
                    rsa_numbers(key.public_key().as_ref()).ok_or("its public key is malformed")?;
                put(&mut out, b"ssh-rsa");
                put(&mut out, exponent);
                put(&mut out, modulus);
            }
        }
        Ok(out)
    }

    fn sign(&self, data: &[u8], flags: u32) -> Option<Vec<u8>> {
        let mut out = Vec::new();
        match self {
            Self::Ed25519(key) => {
                put(&mut out, b"ssh-ed25519");
                put(&mut out, key.sign(data).as_ref());
            }
            Self::Ecdsa(curve, key) => {
                let signature = key.sign(&SystemRandom::new(), data).ok()?;
                let (r, s) = signature.as_ref().split_at(signature.as_ref().len() / 2);
                let mut numbers = Vec::new();
                put(&mut numbers, &positive(r));
                put(&mut numbers, &positive(s));
                put(&mut out, format!("ecdsa-sha2-{curve}").as_bytes());
                put(&mut out, &numbers);
            }
            Self::Rsa(key) => {
                // Without a flag, SHA-1 is meant, which servers no longer take.
                let (name, padding): (&[u8], &'static dyn signature::RsaEncoding) = match flags {
                    it if it & RSA_SHA2_512 != 0 => (b"rsa-sha2-512", &signature::RSA_PKCS1_SHA512),
                    it if it & RSA_SHA2_256 != 0 => (b"rsa-sha2-256", &signature::RSA_PKCS1_SHA256),
                    _ => return None,
                };
                let mut signature = vec![0; key.public_modulus_len()];
                key.sign(padding, &SystemRandom::new(), data, &mut signature).ok()?;
                put(&mut out, name);
                put(&mut out, &signature);
            }
        }
        Some(out)
    }
}

/// Reads the text of a file.
fn identity(text: &[u8], path: &Path) -> Result<Identity, Problem> {
    let text = std::str::from_utf8(text).map_err(|_| "it is no text")?;
    let (_, rest) = text.split_once("-----BEGIN ").ok_or("it does not begin as one")?;
    let (label, rest) = rest.split_once("-----").ok_or("it does not begin as one")?;
    let (body, _) = rest.split_once("-----END ").ok_or("it is cut off")?;
    // Lines with a colon are headers of PEM, and one of them says that what follows is encrypted.
    if label == "ENCRYPTED PRIVATE KEY" || body.contains("ENCRYPTED") {
        return Err(Problem::Encrypted);
    }
    let digits: String = body.chars().filter(|it| !it.is_whitespace()).collect();
    let bytes = STANDARD.decode(digits).map_err(|_| "it is no base64")?;
    let (key, comment) = match label {
        "OPENSSH PRIVATE KEY" => openssh(&bytes)?,
        "RSA PRIVATE KEY" => (rsa(&bytes)?, Vec::new()),
        "EC PRIVATE KEY" => {
            (ecdsa(|it| EcdsaKeyPair::from_private_key_der(it, &bytes))?, Vec::new())
        }
        "PRIVATE KEY" => (pkcs8(&bytes)?, Vec::new()),
        _ => return Err("it is of another kind".into()),
    };
    let comment = match comment.is_empty() {
        true => path.as_os_str().as_encoded_bytes().to_vec(),
        false => comment,
    };
    Ok(Identity { public: key.public()?, key, comment })
}

/// Reads OpenSSH's own format, and the comment in it.
fn openssh(bytes: &[u8]) -> Result<(PrivateKey, Vec<u8>), Problem> {
    const CUT_OFF: &str = "it is cut off";
    let mut outer = Reader(bytes.strip_prefix(MAGIC).ok_or("it does not begin as one")?);
    let cipher = outer.text().ok_or(CUT_OFF)?;
    if cipher != b"none" {
        return Err(Problem::Encrypted);
    }
    let _derivation = (outer.text().ok_or(CUT_OFF)?, outer.text().ok_or(CUT_OFF)?);
    if outer.number() != Some(1) {
        return Err("it has not one key in it".into());
    }
    let _public = outer.text().ok_or(CUT_OFF)?;
    let mut inner = Reader(outer.text().ok_or(CUT_OFF)?);
    if inner.number().ok_or(CUT_OFF)? != inner.number().ok_or(CUT_OFF)? {
        return Err("its check numbers differ".into());
    }
    let mut text = || inner.text().ok_or(CUT_OFF);
    let key = match text()? {
        b"ssh-ed25519" => {
            let (public, private) = (text()?, text()?);
            let seed = private.get(..32).ok_or(CUT_OFF)?;
            let key = Ed25519KeyPair::from_seed_and_public_key(seed, public);
            PrivateKey::Ed25519(key.map_err(|_| "its halves do not belong together")?)
        }
        kind if kind.starts_with(b"ecdsa-sha2-") => {
            let (curve, public, private) = (text()?, text()?, positive(text()?));
            let known = CURVES.iter().find(|it| it.0.as_bytes() == curve);
            let (name, algorithm) = *known.ok_or("its curve is not known")?;
            // A number loses its leading zeros in this format, and must have them for the other.
            let length = public.len() / 2;
            let number = private.strip_prefix(&[0]).unwrap_or(&private);
            let mut private = vec![0; length.saturating_sub(number.len())];
            private.extend_from_slice(number);
            let key = EcdsaKeyPair::from_private_key_and_public_key(algorithm, &private, public);
            PrivateKey::Ecdsa(name, key.map_err(|_| "its halves do not belong together")?)
        }
        b"ssh-rsa" => {
            let (n, e, d) = (text()?, text()?, text()?);
            let (inverse, p, q) = (text()?, text()?, text()?);
            let exponents = (remainder(d, &less_one(p)), remainder(d, &less_one(q)));
            let numbers = [&[0][..], n, e, d, p, q, &exponents.0, &exponents.1, inverse];
            let numbers: Vec<u8> = numbers.iter().flat_map(|it| der(0x02, &positive(it))).collect();
            rsa(&der(0x30, &numbers))?
        }
        _ => return Err("its kind of key is not known".into()),
    };
    Ok((key, text()?.to_vec()))
}

fn rsa(der: &[u8]) -> Result<PrivateKey, Problem> {
    let key = RsaKeyPair::from_der(der);
    Ok(PrivateKey::Rsa(
        key.map_err(|_| "its numbers are not those of an RSA key of 2048 bits or more")?,
    ))
}

fn ecdsa<E>(
    make: impl Fn(&'static EcdsaSigningAlgorithm) -> Result<EcdsaKeyPair, E>,
) -> Result<PrivateKey, Problem> {
    let found = CURVES.iter().find_map(|(name, curve)| Some((*name, make(curve).ok()?)));
    let (name, key) = found.ok_or("it is no key of a known kind")?;
    Ok(PrivateKey::Ecdsa(name, key))
}

fn pkcs8(der: &[u8]) -> Result<PrivateKey, Problem> {
    if let Ok(key) = Ed25519KeyPair::from_pkcs8_maybe_unchecked(der) {
        return Ok(PrivateKey::Ed25519(key));
    }
    if let Ok(key) = RsaKeyPair::from_pkcs8(der) {
        return Ok(PrivateKey::Rsa(key));
    }
    ecdsa(|it| EcdsaKeyPair::from_pkcs8(it, der))
}

/// The two numbers of a public RSA key in DER: the modulus and the exponent.
fn rsa_numbers(der: &[u8]) -> Option<(&[u8], &[u8])> {
    let (0x30, inside, _) = der_value(der)? else { return None };
    let (0x02, modulus, rest) = der_value(inside)? else { return None };
    let (0x02, exponent, _) = der_value(rest)? else { return None };
    Some((modulus, exponent))
}

/// The tag and the content of a value in DER, and what follows it.
fn der_value(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (tag, rest) = bytes.split_first()?;
    let (first, rest) = rest.split_first()?;
    let n_digits = usize::from(first & 0x7f);
    let (length, rest) = match first & 0x80 {
        0 => (n_digits, rest),
        _ if n_digits <= 4 => {
            let (digits, rest) = rest.split_at_checked(n_digits)?;
            (digits.iter().fold(0, |sum, it| sum << 8 | usize::from(*it)), rest)
        }
        _ => return None,
    };
    let (inside, after) = rest.split_at_checked(length)?;
    Some((*tag, inside, after))
}

/// A value in DER.
fn der(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = content.len().to_be_bytes();
    let digits = &length[length.iter().take_while(|it| **it == 0).count()..];
    let mut out = vec![tag];
    match content.len() {
        0..0x80 => out.push(content.len() as u8),
        _ => {
            out.push(0x80 | digits.len() as u8);
            out.extend_from_slice(digits);
        }
    }
    out.extend_from_slice(content);
    out
}

/// A number as it is written where numbers have a sign: no zeros in front but the one that says that it is positive.
fn positive(number: &[u8]) -> Vec<u8> {
    let start = number.iter().take_while(|it| **it == 0).count();
    let digits = &number[start..];
    let mut out = Vec::with_capacity(digits.len() + 1);
    if digits.first().is_none_or(|it| it & 0x80 != 0) {
        out.push(0);
    }
    out.extend_from_slice(digits);
    out
}

/// An odd number, less one.
fn less_one(number: &[u8]) -> Vec<u8> {
    let mut out = number.to_vec();
    if let Some(last) = out.last_mut() {
        *last &= 0xfe;
    }
    out
}

/// What is left of a number when it is divided by another, bit by bit.
fn remainder(number: &[u8], divisor: &[u8]) -> Vec<u8> {
    let n_bytes = divisor.len() + 1;
    let mut wide = vec![0; n_bytes - divisor.len()];
    wide.extend_from_slice(divisor);
    let mut rest = vec![0_u8; n_bytes];
    for bit_idx in 0..number.len() * 8 {
        let bit = number[bit_idx / 8] >> (7 - bit_idx % 8) & 1;
        let mut carry = bit;
        for byte in rest.iter_mut().rev() {
            (*byte, carry) = (*byte << 1 | carry, *byte >> 7);
        }
        if rest >= wide {
            let mut borrow = false;
            for (left, right) in rest.iter_mut().zip(&wide).rev() {
                let (value, first) = left.overflowing_sub(*right);
                let (value, second) = value.overflowing_sub(u8::from(borrow));
                (*left, borrow) = (value, first || second);
            }
        }
    }
    rest
}

/// Appends text with its length in front.
fn put(out: &mut Vec<u8>, text: &[u8]) {
    out.extend_from_slice(&u32::try_from(text.len()).unwrap_or(0).to_be_bytes());
    out.extend_from_slice(text);
}

/// Reads numbers, and text with its length in front.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn number(&mut self) -> Option<u32> {
        let (number, rest) = self.0.split_first_chunk::<4>()?;
        self.0 = rest;
        Some(u32::from_be_bytes(*number))
    }

    fn text(&mut self) -> Option<&'a [u8]> {
        let length = self.number()? as usize;
        let (text, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(name: &str) -> std::path::PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/executor/ssh").join(name)
    }

    fn request(public: &[u8], data: &[u8], flags: u32) -> Vec<u8> {
        let mut out = Vec::new();
        put(&mut out, public);
        put(&mut out, data);
        out.extend_from_slice(&flags.to_be_bytes());
        out
    }

    /// Two numbers of a signature, each filled up to half of its length.
    fn fixed(numbers: &[u8], n_bytes: usize) -> Vec<u8> {
        let mut reader = Reader(numbers);
        let mut out = Vec::new();
        for _ in 0..2 {
            let number = reader.text().expect("a number");
            let number = number.strip_prefix(&[0]).unwrap_or(number);
            out.resize(out.len() + n_bytes - number.len(), 0);
            out.extend_from_slice(number);
        }
        out
    }

    #[test]
    fn keys_are_listed_and_sign_in_all_their_forms() {
        use signature::{
            ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ECDSA_P521_SHA512_FIXED, ED25519,
            RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_2048_8192_SHA512, UnparsedPublicKey,
            VerificationAlgorithm,
        };
        for (name, flags, kind, n_bytes, algorithm) in [
            ("ed25519", 0, "ssh-ed25519", 0, &ED25519 as &dyn VerificationAlgorithm),
            ("ed25519-pkcs8", 0, "ssh-ed25519", 0, &ED25519),
            ("rsa", 2, "rsa-sha2-256", 0, &RSA_PKCS1_2048_8192_SHA256),
            ("rsa", 4, "rsa-sha2-512", 0, &RSA_PKCS1_2048_8192_SHA512),
            ("rsa-pem", 6, "rsa-sha2-512", 0, &RSA_PKCS1_2048_8192_SHA512),
            ("rsa-pkcs8", 2, "rsa-sha2-256", 0, &RSA_PKCS1_2048_8192_SHA256),
            ("ecdsa-256", 0, "ecdsa-sha2-nistp256", 32, &ECDSA_P256_SHA256_FIXED),
            ("ecdsa-pem", 0, "ecdsa-sha2-nistp256", 32, &ECDSA_P256_SHA256_FIXED),
            ("ecdsa-384", 0, "ecdsa-sha2-nistp384", 48, &ECDSA_P384_SHA384_FIXED),
            ("ecdsa-pkcs8", 0, "ecdsa-sha2-nistp384", 48, &ECDSA_P384_SHA384_FIXED),
            ("ecdsa-521", 0, "ecdsa-sha2-nistp521", 66, &ECDSA_P521_SHA512_FIXED),
        ] {
            let keys = SshKeys::read(&[path("ed25519"), path(name)]);
            let keys = keys.unwrap_or_else(|error| panic!("{error}"));
            let Identity { key, public, comment } = &keys.0[1];
            if let Ok(text) = std::fs::read_to_string(path(&format!("{name}.pub"))) {
                let words: Vec<&str> = text.split_whitespace().collect();
                assert_eq!(STANDARD.encode(public), words[1], "{name}");
                if name == "ed25519" {
                    assert_eq!(comment, b"test of kiln");
                }
            }
            assert_eq!(keys.list()[..5], [12, 0, 0, 0, 2], "{name}");
            let answer = keys.sign(&request(public, b"data", flags)).expect("it signs");
            let mut answer = Reader(answer.strip_prefix(&[14]).expect("a signature"));
            let mut answer = Reader(answer.text().expect("a signature"));
            assert_eq!(answer.text(), Some(kind.as_bytes()), "{name}");
            let signature = answer.text().expect("a signature");
            let signature = match n_bytes {
                0 => signature.to_vec(),
                n_bytes => fixed(signature, n_bytes),
            };
            let public = match key {
                PrivateKey::Ed25519(key) => key.public_key().as_ref().to_vec(),
                PrivateKey::Ecdsa(_, key) => key.public_key().as_ref().to_vec(),
                PrivateKey::Rsa(key) => key.public_key().as_ref().to_vec(),
            };
            let public = UnparsedPublicKey::new(algorithm, &public);
            assert!(public.verify(b"data", &signature).is_ok(), "{name}");
            assert!(public.verify(b"other", &signature).is_err(), "{name}");
        }
    }

    #[test]
    fn what_cannot_be_used_is_refused() {
        for (name, message) in [
            ("encrypted", "passphrase"),
            ("encrypted-pem", "passphrase"),
            ("rsa.pub", "no private key"),
            ("missing", "cannot read"),
            ("", "cannot read"),
        ] {
            let error = SshKeys::read(&[path(name)]).expect_err("it is refused");
            assert!(error.to_string().contains(message), "{name}: {error}");
        }
        let keys = SshKeys::read(&[path("rsa")]).expect("a key");
        let public = &keys.0[0].public;
        assert!(keys.sign(&request(public, b"", 0)).is_none(), "SHA-1");
        assert!(keys.sign(&request(b"other", b"", 2)).is_none());
        assert!(keys.sign(&request(public, b"", 2)[..20]).is_none(), "cut off");
        let text = std::fs::read(path("rsa")).expect("a key");
        let digits = String::from_utf8_lossy(&text)
            .lines()
            .filter(|it| !it.starts_with('-'))
            .collect::<String>();
        let bytes = STANDARD.decode(digits).expect("base64");
        for length in 0..bytes.len() - 30 {
            assert!(openssh(&bytes[..length]).is_err(), "cut at {length}");
        }
    }

    #[test]
    fn numbers() {
        assert_eq!(positive(&[0, 0, 0x7f]), [0x7f]);
        assert_eq!(positive(&[0x80]), [0, 0x80]);
        assert_eq!(positive(&[]), [0]);
        let value = |bytes: &[u8]| bytes.iter().fold(0_u64, |sum, it| sum << 8 | u64::from(*it));
        for (number, divisor) in
            [(0_u64, 7_u64), (6, 7), (7, 7), (u64::MAX, 0xfff1), (1 << 60, 0x0123_4567_89ab)]
        {
            let rest = remainder(&number.to_be_bytes(), &divisor.to_be_bytes());
            assert_eq!(value(&rest), number % divisor);
        }
        let long = der(0x30, &[7; 300]);
        assert_eq!(long[..4], [0x30, 0x82, 1, 44]);
        assert_eq!(der_value(&long), Some((0x30, &[7; 300][..], &[][..])));
        assert_eq!(der_value(&long[..9]), None);
    }
}
