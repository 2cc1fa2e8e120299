//! Signed tokens for one-click unsubscription (RFC 8058): they name user and mail, and only the shop can make them.

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD as BASE64};
use hmac::{Hmac, Mac};
use sha2::Sha256;

/// The token by which this user unsubscribes from this mail.
pub fn token(secret: &str, user_id: &str, trigger_id: &str) -> String {
    let text = format!("{}.{}", BASE64.encode(user_id), BASE64.encode(trigger_id));
    let signature = mac(secret, &text).finalize().into_bytes();
    format!("{text}.{}", BASE64.encode(signature))
}

/// User and trigger of a token; `None` where it was not signed with this secret.
pub fn verify(secret: &str, token: &str) -> Option<(String, String)> {
    let (text, signature) = token.rsplit_once('.')?;
    mac(secret, text).verify_slice(&BASE64.decode(signature).ok()?).ok()?;
    let (user, trigger) = text.split_once('.')?;
    let plain = |part: &str| String::from_utf8(BASE64.decode(part).ok()?).ok();
    Some((plain(user)?, plain(trigger)?))
}

#[allow(clippy::expect_used, reason = "a key of any length will do")]
fn mac(secret: &str, text: &str) -> Hmac<Sha256> {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).expect("HMAC takes keys of any length");
    mac.update(text.as_bytes());
    mac
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_says_who_unsubscribes_and_no_other_secret_nor_a_changed_one_does() {
        let token = token("secret", "Ünïcode/../user", "t1");
        assert_eq!(verify("secret", &token), Some(("Ünïcode/../user".into(), "t1".into())));
        assert!(token.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b)), "{token}");
        assert_eq!(verify("other", &token), None);
        for n in 0..token.len() {
            let mut changed = token.clone().into_bytes();
            changed[n] = if changed[n] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(changed).unwrap();
            // The last letter carries two bits that count for nothing.
            assert!(verify("secret", &changed).is_none_or(|found| n == token.len() - 1 && found.1 == "t1"), "{n}");
        }
        for wrong in ["", ".", "..", "a.b.c", "ä.ö.ü"] {
            assert_eq!(verify("secret", wrong), None);
        }
    }
}
