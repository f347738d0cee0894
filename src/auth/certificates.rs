//! Client certificates: which one is which principal, and what it may do.
//!
//! TLS has verified the certificate before: its issuer, its validity and whether it is revoked. Here a rule takes one of its names,
//! and grants streams to it.

use std::time::SystemTime;

use x509_cert::Certificate;
use x509_cert::crl::CertificateList;
use x509_cert::der::{Decode, Encode, Error};
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;
use x509_cert::name::Name;
use x509_cert::serial_number::SerialNumber;

use super::claims::{Claims, InvalidClaims};
use super::crypto::fingerprint;
use super::grants::{GrantList, Grants, TokenFacts};
use super::settings::{CertificateName, CertificateRule, Rule};
use crate::stream::Tenant;

/// Stands for any text, which is not empty, in the pattern of a rule.
const ANY: char = '*';

/// The beginning of the subjects of certificates, in place of the issuer of a token. No issuer has such a name.
pub(super) const SUBJECTS: &str = "certificate:";

/// The names of a certificate, and its validity.
struct Names {
    id: u64,
    all: Vec<(CertificateName, String)>,
    begin: SystemTime,
    end: SystemTime,
}

impl CertificateRule {
    /// Returns what `{sub}` stands for if the rule is for this name.
    fn subject_of<'a>(&self, name: CertificateName, text: &'a str) -> Option<&'a str> {
        if name == self.name { variable_of(&self.matches, text) } else { None }
    }

    fn as_rule(&self) -> Rule {
        Rule::of_subject([&self.read, &self.append, &self.create, &self.manage])
    }
}

/// Returns what `{sub}` stands for if the text matches the pattern of a rule: what is in the place of [`ANY`], or all of it.
pub(super) fn variable_of<'a>(pattern: &str, text: &'a str) -> Option<&'a str> {
    match pattern.split_once(ANY) {
        Some((begin, end)) => {
            text.strip_prefix(begin)?.strip_suffix(end).filter(|between| !between.is_empty())
        }
        None => (text == pattern).then_some(text),
    }
}

/// Returns the grants of a certificate, which end when it expires. `None`: no rule matches a name of the certificate.
///
/// The first rule that matches one of its names sets its tenant and its subject. The grants are those of all matching rules of this
/// tenant, and the public ones. `facts` makes the record by which a revocation is recognized; its arguments are the id of the
/// certificate, the kind and the text of the name that matched first, and the start of the validity.
pub(super) fn grants(
    certificate: &[u8],
    rules: &[(Tenant, CertificateRule)],
    public: &GrantList,
    facts: impl FnOnce(u64, &str, &str, SystemTime) -> TokenFacts,
) -> Result<Option<Grants>, InvalidClaims> {
    let Ok(names) = Names::of(certificate) else { return Ok(None) };
    let (mut list, mut holder) = (GrantList::default(), None);
    for (tenant, rule) in rules {
        for (name, text) in &names.all {
            let Some(variable) = rule.subject_of(*name, text) else { continue };
            let (own, ..) = holder.get_or_insert((tenant, name, text));
            if *own == tenant {
                list.extend(&Claims::of_subject(variable).grants(&[rule.as_rule()], tenant)?);
            }
        }
    }
    let Some((tenant, name, text)) = holder else { return Ok(None) };
    // Public streams are those of the default tenant.
    if tenant.is_default() {
        list.extend(public);
    }
    let kind = format!("{SUBJECTS}{}", name.as_str());
    let facts = facts(names.id, &kind, text, names.begin);
    Ok(Some(Grants::of(tenant.clone(), &format!("{kind} {text}"), list, names.end, Some(facts))))
}

/// The ids of the certificates that a list in DER revokes.
pub(super) fn revoked_by(list: &[u8]) -> Result<Vec<u64>, Error> {
    let list = <CertificateList>::from_der(list)?.tbs_cert_list;
    let revoked = list.revoked_certificates.iter().flatten();
    revoked.map(|revoked| id(&list.issuer, &revoked.serial_number)).collect()
}

/// Identifies a certificate by its authority and its serial number (RFC 5280, section 4.1.2.2).
fn id(issuer: &Name, serial: &SerialNumber) -> Result<u64, Error> {
    Ok(fingerprint(&[b"certificate", &issuer.to_der()?, serial.as_bytes()]))
}

impl Names {
    fn of(certificate: &[u8]) -> Result<Self, Error> {
        let certificate = Certificate::from_der(certificate)?;
        let certificate = certificate.tbs_certificate();
        let mut all = Vec::new();
        if let Some((_, SubjectAltName(alternatives))) = certificate.get_extension()? {
            all.extend(alternatives.iter().filter_map(|alternative| match alternative {
                GeneralName::UniformResourceIdentifier(uri) => Some((CertificateName::Uri, uri.to_string())),
                GeneralName::DnsName(name) => Some((CertificateName::Dns, name.to_string())),
                GeneralName::Rfc822Name(address) => Some((CertificateName::Email, address.to_string())),
                _ => None,
            }));
        }
        if let Some(name) = certificate.subject().common_name()? {
            all.push((CertificateName::Cn, name.value().to_string()));
        }
        let validity = certificate.validity();
        let [begin, end] = [&validity.not_before, &validity.not_after]
            .map(|time| SystemTime::UNIX_EPOCH + time.to_unix_duration());
        let id = id(certificate.issuer(), certificate.serial_number())?;
        Ok(Self { id, all, begin, end })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio_rustls::rustls::pki_types::pem::PemObject;
    use tokio_rustls::rustls::pki_types::{CertificateDer, CertificateRevocationListDer};

    use super::*;
    use crate::auth::{Action, authorize};
    use crate::stream::{Filter, StreamName};

    /// With the names `URI:spiffe://example.org/device/7`, `DNS:sensor7.example.org`, `email:ops@example.org` and the common name
    /// `sensor-7`; made by `openssl req -x509`.
    const CERTIFICATE: &str = "\
-----BEGIN CERTIFICATE-----
MIIB8jCCAZegAwIBAgIUB/Mu3MUfiRKDboBFPv7vA7xLPBswCgYIKoZIzj0EAwIw
JTEQMA4GA1UECgwHRXhhbXBsZTERMA8GA1UEAwwIc2Vuc29yLTcwHhcNMjYxMTI5
MDA1MTA3WhcNMzYxMTI2MDA1MTA3WjAlMRAwDgYDVQQKDAdFeGFtcGxlMREwDwYD
VQQDDAhzZW5zb3ItNzBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABKmWve11uNnA
BPI6/JauGB6fgqXF1DBcqaMlFfvYgGRfGIvogKear1P1hg1awkw9vHQYGW1cqBO1
Uq1RndEnogOjgaQwgaEwHQYDVR0OBBYEFEU9RzZRqSXoijZP2mWA/jnvH0ZmMB8G
A1UdIwQYMBaAFEU9RzZRqSXoijZP2mWA/jnvH0ZmMA8GA1UdEwEB/wQFMAMBAf8w
TgYDVR0RBEcwRYYdc3BpZmZlOi8vZXhhbXBsZS5vcmcvZGV2aWNlLzeCE3NlbnNv
cjcuZXhhbXBsZS5vcmeBD29wc0BleGFtcGxlLm9yZzAKBggqhkjOPQQDAgNJADBG
AiEApK51ZXyl+LlwUuCwg8EOttF19DUq8N5q7NBGC5L83Y4CIQCJzJR2tWByapxv
qIhmXTcYbQbCJXbIiPoy8wSGZZTVsw==
-----END CERTIFICATE-----";

    /// The end of its validity, in seconds since 1970.
    const END: u64 = 2111273467;

    fn rule(name: CertificateName, matches: &str, read: &[&str]) -> CertificateRule {
        let read = read.iter().map(|&pattern| pattern.to_owned()).collect();
        let [append, create, manage] = Default::default();
        CertificateRule { name, matches: matches.to_owned(), tenant: None, read, append, create, manage }
    }

    fn facts(id: u64, _: &str, _: &str, _: SystemTime) -> TokenFacts {
        TokenFacts { key: 1, id: Some(id), subject: 2, issued_at: 3 }
    }

    fn of(rules: &[CertificateRule]) -> Result<Option<Grants>, InvalidClaims> {
        let der = CertificateDer::from_pem_slice(CERTIFICATE.as_bytes()).unwrap();
        let with_tenant = |rule: &CertificateRule| (rule.tenant().unwrap(), rule.clone());
        let rules: Vec<_> = rules.iter().map(with_tenant).collect();
        grants(&der, &rules, &public(), facts)
    }

    fn public() -> GrantList {
        let mut list = GrantList::default();
        list.of_mut(Action::Read).push(Filter::parse("public").unwrap());
        list
    }

    fn reads(grants: &Grants, stream: &str) -> bool {
        authorize(grants, Action::Read, &StreamName::parse(stream).unwrap()).is_ok()
    }

    #[test]
    fn each_kind_of_name_can_be_granted_streams() {
        for (name, matches, subject, stream) in [
            (
                CertificateName::Uri,
                "spiffe://example.org/device/*",
                "uri spiffe://example.org/device/7",
                "d/7",
            ),
            (CertificateName::Dns, "*.example.org", "dns sensor7.example.org", "d/sensor7"),
            (CertificateName::Email, "ops@example.org", "email ops@example.org", "d/ops@example.org"),
            (CertificateName::Cn, "sensor-*", "cn sensor-7", "d/7"),
        ] {
            let grants = of(&[rule(name, matches, &["d/{sub}"])]).unwrap().unwrap();
            assert_eq!(grants.subject(), Some(format!("certificate:{subject}").as_str()));
            assert!(reads(&grants, stream) && !reads(&grants, "d/other"), "{matches}");
            assert_eq!(grants.expires_at(), Some(SystemTime::UNIX_EPOCH + Duration::from_secs(END)));
        }
    }

    #[test]
    fn a_name_of_another_kind_or_text_is_granted_nothing() {
        for (name, matches) in [
            (CertificateName::Dns, "sensor-7"),
            (CertificateName::Cn, "sensor-7*"),
            (CertificateName::Cn, "sensor"),
            (CertificateName::Uri, "spiffe://example.com/*"),
        ] {
            assert_eq!(of(&[rule(name, matches, &["#"])]), Ok(None), "{matches}");
        }
        assert_eq!(
            grants(
                b"garbage",
                &[(Tenant::default(), rule(CertificateName::Cn, "*", &["#"]))],
                &GrantList::default(),
                facts
            ),
            Ok(None)
        );
    }

    #[test]
    fn rules_add_up_and_a_name_that_is_no_level_refuses_all() {
        let of_both = of(&[
            rule(CertificateName::Cn, "sensor-*", &["a/{sub}"]),
            rule(CertificateName::Email, "*@example.org", &["b/{sub}"]),
        ]);
        let grants = of_both.unwrap().unwrap();
        assert!(reads(&grants, "a/7") && reads(&grants, "b/ops"));
        assert_eq!(grants.subject(), Some("certificate:cn sensor-7"));
        let whole = of(&[rule(CertificateName::Uri, "spiffe://*", &["{sub}"])]);
        assert_eq!(whole, Err(InvalidClaims::Value("{sub}".to_owned())), "it has slashes");
    }

    #[test]
    fn the_first_rule_that_fits_says_which_tenant_and_rules_of_others_grant_nothing() {
        let in_tenant = |tenant: &str, read: &str| CertificateRule {
            tenant: Some(tenant.to_owned()),
            ..rule(CertificateName::Cn, "sensor-*", &[read])
        };
        let grants = of(&[in_tenant("acme", "a/{tenant}"), in_tenant("beta", "b"), in_tenant("acme", "c")]);
        let grants = grants.unwrap().unwrap();
        let acme = Tenant::parse("acme").unwrap();
        assert_eq!(grants.tenant(), &acme);
        let may_read = |text: &str| {
            let name = StreamName::parse(text).unwrap().of_tenant(&acme);
            authorize(&grants, Action::Read, &name).is_ok()
        };
        let expected = [("a/acme", true), ("b", false), ("c", true), ("public", false)];
        assert_eq!(expected.map(|(stream, _)| (stream, may_read(stream))), expected);
        assert!(!reads(&grants, "c") && !reads(&grants, "public"), "streams of the default tenant");
        let of_default = of(&[rule(CertificateName::Cn, "sensor-*", &["c"])]).unwrap().unwrap();
        assert!(reads(&of_default, "public"));
        assert!(in_tenant("a/b", "c").tenant().is_err());
    }
    #[test]
    fn a_list_revokes_the_certificates_of_its_authority_with_its_serial_numbers() {
        let read = |name: &str| {
            let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/gateway/certificates");
            std::fs::read(folder.join(name)).unwrap()
        };
        let list = CertificateRevocationListDer::from_pem_slice(&read("revoked-list.pem")).unwrap();
        let id = |name: &str| {
            let certificate = CertificateDer::from_pem_slice(&read(name)).unwrap();
            Names::of(&certificate).unwrap().id
        };
        assert_eq!(revoked_by(&list).unwrap(), [id("revoked.pem")]);
        assert_ne!(id("granted.pem"), id("revoked.pem"));
        assert!(revoked_by(&list[1..]).is_err());
    }
}
