//! The tokens by which a consensus client proves that it knows the shared secret: HS256, made within the
//! last minute. Refusals have geth's texts, which people search for.

use alloy_primitives::hex;
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use hmac::{Hmac, Mac};
use serde::Deserialize;
use sha2::Sha256;
use std::fmt;

/// How far a token's `iat` may lie from now, seconds (execution-apis, authentication.md).
const TOKEN_AGE_MAX_S: u64 = 60;

/// The 256 bits that node and consensus client share.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct JwtSecret([u8; 32]);

/// A text that is no secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid JWT secret: expected 64 hex digits")]
pub struct JwtSecretError;

impl JwtSecret {
    /// The secret with these bytes.
    pub const fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Reads what a secret file holds: 64 hex digits, with or without `0x`, spaces around them ignored.
    pub fn from_hex(text: &str) -> Result<Self, JwtSecretError> {
        let bytes = hex::decode(text.trim()).map_err(|_| JwtSecretError)?;
        bytes.try_into().map(Self).map_err(|_| JwtSecretError)
    }

    /// What a secret file holds.
    pub fn to_hex(&self) -> String {
        hex::encode_prefixed(self.0)
    }

    /// A token made at `now`, seconds since 1970: what a consensus client sends as `Bearer`.
    pub fn token(&self, now: u64) -> String {
        let header = URL_SAFE_NO_PAD.encode(r#"{"alg":"HS256","typ":"JWT"}"#);
        let claims = URL_SAFE_NO_PAD.encode(format!(r#"{{"iat":{now}}}"#));
        let signed = format!("{header}.{claims}");
        let signature = self.mac(&signed).finalize().into_bytes();
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    /// Whether an `Authorization` header admits its request at `now`; geth's text where it does not.
    pub(crate) fn admits(&self, authorization: Option<&str>, now: u64) -> Result<(), &'static str> {
        let token = authorization.and_then(|value| value.strip_prefix("Bearer ")).unwrap_or("");
        if token.is_empty() {
            return Err("missing token");
        }
        let (signed, signature) = token.rsplit_once('.').ok_or(SEGMENTS)?;
        let (header, claims) = signed.split_once('.').ok_or(SEGMENTS)?;
        if claims.contains('.') {
            return Err(SEGMENTS);
        }
        let header: TokenHeader = decode(header)?;
        let claims: Claims = decode(claims)?;
        match header.alg.as_deref() {
            Some("HS256") => {}
            Some("none") => return Err("signing method none is invalid"),
            Some(_) => return Err("signing method is invalid"),
            None => return Err("signing method (alg) is unspecified."),
        }
        let signature = URL_SAFE_NO_PAD.decode(signature).map_err(|_| "illegal base64 data")?;
        self.mac(signed).verify_slice(&signature).map_err(|_| "signature is invalid")?;
        check_times(&claims, now)
    }

    fn mac(&self, signed: &str) -> Hmac<Sha256> {
        let mac = Hmac::<Sha256>::new_from_slice(&self.0);
        mac.expect("HMAC takes a key of any length").chain_update(signed)
    }
}

/// The secret stays out of logs.
impl fmt::Debug for JwtSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JwtSecret").finish_non_exhaustive()
    }
}

const SEGMENTS: &str = "token contains an invalid number of segments";

#[derive(Deserialize)]
struct TokenHeader {
    alg: Option<String>,
}

/// Unix seconds, which the standard allows to have fractions. Other claims are ignored.
#[derive(Deserialize)]
struct Claims {
    iat: Option<f64>,
    exp: Option<f64>,
}

fn decode<T: serde::de::DeserializeOwned>(segment: &str) -> Result<T, &'static str> {
    let bytes = URL_SAFE_NO_PAD.decode(segment).map_err(|_| "illegal base64 data")?;
    serde_json::from_slice(&bytes).map_err(|_| "token is not JSON")
}

fn check_times(claims: &Claims, now: u64) -> Result<(), &'static str> {
    let now = now as f64;
    let slack = TOKEN_AGE_MAX_S as f64;
    if claims.exp.is_some_and(|expires| expires <= now) {
        return Err("token is expired");
    }
    match claims.iat {
        None => Err("missing issued-at"),
        Some(issued) if now - issued > slack => Err("stale token"),
        Some(issued) if issued - now > slack => Err("future token"),
        Some(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_700_000_000;
    const SECRET: JwtSecret = JwtSecret::new([7; 32]);

    /// A token of these parts, signed with [`SECRET`].
    fn signed(header: &str, claims: &str) -> String {
        let signed =
            format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
        let signature = SECRET.mac(&signed).finalize().into_bytes();
        format!("Bearer {signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    fn of_claims(claims: &str) -> String {
        signed(r#"{"alg":"HS256","typ":"JWT"}"#, claims)
    }

    #[test]
    fn tokens_of_the_last_minute_and_the_next_are_admitted() {
        for iat in [NOW - 60, NOW - 59, NOW, NOW + 60] {
            let header = format!("Bearer {}", SECRET.token(iat));
            assert_eq!(SECRET.admits(Some(&header), NOW), Ok(()), "{iat}");
        }
        let extra =
            of_claims(&format!(r#"{{"iat":{NOW}.5,"id":"a","clv":"b","exp":{}}}"#, NOW + 1));
        assert_eq!(SECRET.admits(Some(&extra), NOW), Ok(()));
    }

    #[test]
    fn refusals_have_geths_texts() {
        let now = format!(r#"{{"iat":{NOW}}}"#);
        let unsigned = format!(
            "Bearer {}.{}.",
            URL_SAFE_NO_PAD.encode(r#"{"alg":"none"}"#),
            URL_SAFE_NO_PAD.encode(&now)
        );
        let foreign = format!("Bearer {}", JwtSecret::new([8; 32]).token(NOW));
        let rows = [
            (String::new(), "missing token"),
            ("Bearer ".to_owned(), "missing token"),
            ("Basic abc".to_owned(), "missing token"),
            ("Bearer abc".to_owned(), SEGMENTS),
            ("Bearer a.b".to_owned(), SEGMENTS),
            ("Bearer a.b.c.d".to_owned(), SEGMENTS),
            (unsigned, "signing method none is invalid"),
            (signed(r#"{"alg":"HS512"}"#, &now), "signing method is invalid"),
            (foreign, "signature is invalid"),
            (of_claims("{}"), "missing issued-at"),
            (of_claims(&format!(r#"{{"iat":{}}}"#, NOW - 61)), "stale token"),
            (of_claims(&format!(r#"{{"iat":{}}}"#, NOW + 61)), "future token"),
            (of_claims(&format!(r#"{{"iat":{NOW},"exp":{NOW}}}"#)), "token is expired"),
        ];
        for (header, text) in rows {
            assert_eq!(SECRET.admits(Some(&header), NOW), Err(text), "{header}");
        }
        assert_eq!(SECRET.admits(None, NOW), Err("missing token"));
    }

    #[test]
    fn a_secret_file_is_64_hex_digits() {
        let text = "07".repeat(32);
        for text in [text.clone(), format!("0x{text}\n"), format!("  {text} ")] {
            assert_eq!(JwtSecret::from_hex(&text), Ok(SECRET));
        }
        for text in ["", "0x", &text[2..], &format!("{text}07"), &"zz".repeat(32)] {
            assert_eq!(JwtSecret::from_hex(text), Err(JwtSecretError), "{text}");
        }
        assert_eq!(JwtSecret::from_hex(&SECRET.to_hex()), Ok(SECRET));
        assert_eq!(format!("{SECRET:?}"), "JwtSecret { .. }");
    }
}
