//! Encryption of Web Push messages: the key agreement of RFC 8291, and one record of RFC 8188 (`aes128gcm`).

use ring::aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use ring::agreement::{ECDH_P256, EphemeralPrivateKey, UnparsedPublicKey, agree_ephemeral};
use ring::hmac::{HMAC_SHA256, Key, sign};
use ring::rand::{SecureRandom, SystemRandom};

const SALT_BYTES: usize = 16;
const AUTH_BYTES: usize = 16;
const PUBLIC_KEY_BYTES: usize = 65;

/// The size that the header states for all records but the last; there is one record.
const RECORD_BYTES: u32 = 4096;

/// Header, delimiter and tag around the message.
const OVERHEAD: usize = 86 + 17;

/// Ends the last record.
const DELIMITER: u8 = 2;

/// Encrypts a message for the keys of a subscription. `None`: the keys are malformed, or the message is too long.
pub(super) fn encrypt(message: &[u8], p256dh: &[u8], auth: &[u8]) -> Option<Vec<u8>> {
    let random = SystemRandom::new();
    let mut salt = [0; SALT_BYTES];
    random.fill(&mut salt).ok()?;
    encrypt_with(message, p256dh, auth, EphemeralPrivateKey::generate(&ECDH_P256, &random).ok()?, salt)
}

/// Encrypts with a given key and salt, which must never be used twice.
fn encrypt_with(
    message: &[u8],
    p256dh: &[u8],
    auth: &[u8],
    key: EphemeralPrivateKey,
    salt: [u8; SALT_BYTES],
) -> Option<Vec<u8>> {
    if auth.len() != AUTH_BYTES || p256dh.len() != PUBLIC_KEY_BYTES {
        return None;
    }
    if message.len() + OVERHEAD > usize::try_from(RECORD_BYTES).ok()? {
        return None;
    }
    let public = key.compute_public_key().ok()?;
    let derive = |secret: &[u8]| input_key(secret, p256dh, public.as_ref(), auth);
    let input = agree_ephemeral(key, &UnparsedPublicKey::new(&ECDH_P256, p256dh), derive).ok()?;
    let pseudorandom = hmac(&salt, &[&input]);
    let content_key = hmac(&pseudorandom, &[b"Content-Encoding: aes128gcm\0\x01"]);
    let nonce = hmac(&pseudorandom, &[b"Content-Encoding: nonce\0\x01"]);
    let content_key = LessSafeKey::new(UnboundKey::new(&AES_128_GCM, content_key.get(..16)?).ok()?);
    let nonce = Nonce::try_assume_unique_for_key(nonce.get(..12)?).ok()?;

    let mut record = [message, &[DELIMITER]].concat();
    content_key.seal_in_place_append_tag(nonce, Aad::empty(), &mut record).ok()?;
    let size = RECORD_BYTES.to_be_bytes();
    let key_length = u8::try_from(PUBLIC_KEY_BYTES).ok()?;
    Some([&salt, &size[..], &[key_length], public.as_ref(), &record].concat())
}

/// Combines the shared secret with the one of the subscription (RFC 8291, section 3.4).
fn input_key(secret: &[u8], p256dh: &[u8], public: &[u8], auth: &[u8]) -> [u8; 32] {
    hmac(&hmac(auth, &[secret]), &[b"WebPush: info\0", p256dh, public, b"\x01"])
}

fn hmac(key: &[u8], parts: &[&[u8]]) -> [u8; 32] {
    let tag = sign(&Key::new(HMAC_SHA256, key), &parts.concat());
    let mut bytes = [0; 32];
    bytes.copy_from_slice(tag.as_ref());
    bytes
}

#[cfg(test)]
mod tests {
    use base64::Engine;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;

    use super::*;

    fn decoded(text: &str) -> Vec<u8> {
        URL_SAFE_NO_PAD.decode(text).unwrap()
    }

    /// RFC 8291, appendix A.
    #[test]
    #[allow(deprecated, reason = "the one way to give ring a key for an agreement")]
    fn the_example_of_the_standard_is_encrypted_to_the_same_bytes() {
        let private = decoded("yfWPiYE-n46HLnH0KqZOF1fJJU3MYrct3AELtAQ-oRw");
        let random = ring::test::rand::FixedSliceRandom { bytes: &private };
        let key = EphemeralPrivateKey::generate(&ECDH_P256, &random).unwrap();
        let p256dh = decoded(
            "BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw4",
        );
        let (auth, salt) = (decoded("BTBZMqHH6r4Tts7J_aSIgg"), decoded("DGv6ra1nlYgDCS1FRnbzlw"));
        let message = b"When I grow up, I want to be a watermelon";
        let encrypted = encrypt_with(message, &p256dh, &auth, key, salt.try_into().unwrap()).unwrap();
        let expected = "DGv6ra1nlYgDCS1FRnbzlwAAEABBBP4z9KsN6nGRTbVYI_c7VJSPQTBtkgcy27mlmlMoZIIgDll6e3vCYLocInmYWAmS6Tlz\
                        AC8wEqKK6PBru3jl7A_yl95bQpu6cVPTpK4Mqgkf1CXztLVBSt2Ks3oZwbuwXPXLWyouBWLVWGNWQexSgSxsj_Qulcy4a-fN";
        assert_eq!(URL_SAFE_NO_PAD.encode(encrypted), expected);
    }

    #[test]
    fn a_message_that_does_not_fit_and_keys_of_another_size_are_refused() {
        let p256dh = decoded(
            "BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw4",
        );
        let auth = [1; AUTH_BYTES];
        assert_eq!(encrypt(&[0; 3993], &p256dh, &auth).map(|body| body.len()), Some(4096));
        assert_eq!(encrypt(&[0; 3994], &p256dh, &auth), None);
        assert_eq!(encrypt(b"", &[4; 65], &auth), None);
        assert_eq!(encrypt(b"", &p256dh, &auth[1..]), None);
    }
}
