//! Unit tests of appends: splitting a body into messages, and creating a stream.

use super::*;

fn json() -> ContentType {
    ContentType::parse("application/json").unwrap()
}

fn text() -> ContentType {
    ContentType::parse("text/plain").unwrap()
}

fn of_any_type(body: &'static str) -> Append {
    Append::of_any_type(Bytes::from_static(body.as_bytes()), text(), 64)
}

#[test]
fn a_body_is_split_by_the_declared_type_once() {
    let split = Append::of(json(), Payload::default()).with_body("[1,2]".into(), 64).unwrap();
    assert_eq!((split.payload.messages(), split.payload.shape().is_json()), (2, true));
    let whole = Append::of(text(), Payload::default()).with_body("[1,2]".into(), 64).unwrap();
    assert_eq!((whole.payload.messages(), whole.payload.len()), (1, 5));
    let unsplit = |append: Append, body: &'static str| append.with_body(body.into(), 64).unwrap_err();
    assert_eq!(unsplit(Append::of(json(), Payload::default()), ""), AppendError::Empty);
    assert_eq!(unsplit(Append::of(json(), Payload::default()), "[]"), AppendError::Empty);
    assert_eq!(unsplit(Append::default(), "x"), AppendError::NoContentType);
    assert!(matches!(unsplit(Append::of(json(), Payload::default()), "{"), AppendError::Messages(_)));
}

#[test]
fn only_an_append_that_closes_may_be_empty() {
    let closing = Append::closing();
    assert!(closing.close && closing.create.is_none());
    assert!(closing.with_body(Bytes::new(), 64).unwrap().payload.is_empty());
    assert!(Append::closing().fits(&json()) && Append::closing().fits(&text()));
}

#[test]
fn an_append_to_any_stream_is_split_by_the_type_that_the_stream_has() {
    let mut append = of_any_type("[1,2]");
    append.split_for(&json()).unwrap();
    assert_eq!(append.payload.messages(), 2);
    assert!(append.fits(&json()) && !append.fits(&text()));
    // Meanwhile the stream was deleted and created again with another type.
    append.split_for(&text()).unwrap();
    assert_eq!(append.payload.messages(), 1);
    assert!(append.fits(&text()) && !append.fits(&json()));
    let mut copied = of_any_type("[1, 2]");
    copied.split_for(&json()).unwrap();
    let split = copied.payload.bytes().as_ptr();
    copied.split_for(&json()).unwrap();
    assert_eq!(copied.payload.bytes().as_ptr(), split, "a split append is not split again");
    let mut whole = of_any_type("[1,2]");
    whole.split_for(&text()).unwrap();
    assert_eq!(whole.payload.messages(), 1);
    assert!(matches!(of_any_type("{").split_for(&json()), Err(AppendError::Messages(_))));
    assert_eq!(of_any_type("[]").split_for(&json()), Err(AppendError::Empty));
    let mut declared = Append::of(text(), Payload::raw("x".into()));
    declared.split_for(&json()).unwrap();
    assert!(declared.fits(&text()) && !declared.fits(&json()));
    let undeclared = Append { payload: Payload::raw("x".into()), ..Append::default() };
    assert!(!undeclared.fits(&text()));
}

#[test]
fn a_stream_is_created_as_the_append_says() {
    let retention = Retention { messages_max: Some(3), ..Retention::default() };
    let created = |append: Append| {
        Append { create: Some(CreateIfMissing { retention, ..CreateIfMissing::default() }), ..append }
            .creation()
    };
    for (append, content_type) in [
        (Append::of(json(), Payload::default()), json()),
        (of_any_type("x"), text()),
        (Append::closing(), ContentType::octet_stream()),
    ] {
        assert!(append.creation().is_none());
        assert_eq!(append.clone().or_create().create, Some(CreateIfMissing::default()));
        let create = created(append).unwrap();
        assert_eq!((create.content_type, create.default_retention), (content_type, retention));
    }
}

fn split_json(body: &str) -> Result<Vec<String>, InvalidMessages> {
    let json = ContentType::parse("application/json").unwrap();
    let payload = split(Bytes::copy_from_slice(body.as_bytes()), &json, 64)?;
    let text = |bytes: Bytes| String::from_utf8(bytes.to_vec()).unwrap();
    let count = payload.positions();
    Ok((0..count).map(|n| text(payload.until(n + 1).since(n))).collect())
}

#[test]
fn arrays_are_flattened_by_one_level_and_nothing_else_is() {
    for (body, values) in [
        (r#"{"a":1}"#, vec![r#"{"a":1}"#]),
        (r#" [1, "x,y" ,[2,3],{} ] "#, vec!["1", r#""x,y""#, "[2,3]", "{}"]),
        ("[[1,2],[3]]", vec!["[1,2]", "[3]"]),
        ("[[[1]]]", vec!["[[1]]"]),
        ("[]", vec![]),
        ("null", vec!["null"]),
        (r#"["",""]"#, vec![r#""""#, r#""""#]),
    ] {
        assert_eq!(split_json(body).unwrap(), values, "{body}");
    }
}

#[test]
fn a_body_of_another_type_is_one_message_and_an_empty_one_none() {
    let split_as = |content_type: &str, body: &'static [u8]| {
        split(Bytes::from_static(body), &ContentType::parse(content_type).unwrap(), 64).unwrap()
    };
    let text = split_as("text/plain", b"[1,2]");
    assert_eq!((text.messages(), text.since(0).as_ref()), (1, &b"[1,2]"[..]));
    assert_eq!(split_as("text/plain", b"").positions(), 0);
    assert_eq!(split_as("application/json", b"").positions(), 0);
}

#[test]
fn compact_arrays_are_not_copied() {
    let body = Bytes::from_static(br#"[1,{"a":2}]"#);
    let json = ContentType::parse("application/json").unwrap();
    let payload = split(body.clone(), &json, 64).unwrap();
    assert_eq!(payload.since(0).as_ptr() as usize, body.as_ptr() as usize + 1);
}

#[test]
fn invalid_json_is_refused() {
    for body in ["{", "[1,]", "tru", "\"\u{0}\"", "1 2", "[1][2]", "'a'", "\u{feff}1"] {
        assert!(matches!(split_json(body), Err(InvalidMessages::NotJson(_))), "{body:?}");
    }
}

#[test]
fn depth_counts_brackets_outside_of_strings() {
    assert!(split_json(&("[".repeat(64) + &"]".repeat(64))).is_ok());
    assert_eq!(split_json(&("[".repeat(65) + &"]".repeat(65))), Err(InvalidMessages::TooDeep(64)));
    assert_eq!(split_json(&"[".repeat(1_000_000)), Err(InvalidMessages::TooDeep(64)));
    for (text, depth) in
        [("[{}][]", 2), (r#"["[[",{"]]":[]}]"#, 3), (r#"["\"[[",[]]"#, 2), (r#"["\\",[[]]]"#, 3)]
    {
        assert_eq!(json_depth(text.as_bytes()), depth, "{text}");
    }
    assert!(split_json(&format!(r#""{}\"{}""#, "[".repeat(100), "{".repeat(100))).is_ok());
}

#[test]
fn a_trace_context_has_the_lengths_of_its_standard() {
    let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let context = TraceContext::new(Some(parent), Some("a=1")).unwrap();
    assert_eq!((&*context.parent, &*context.state), (parent, "a=1"));
    let long = "x".repeat(513);
    assert_eq!(&*TraceContext::new(Some(parent), Some(&long)).unwrap().state, "");
    let later = format!("01{}-more", &parent[2..]);
    assert!(TraceContext::new(Some(&later), None).is_some());
    for other in
        ["", "00-0af7-b7ad-01", &format!("{parent}-more"), &parent.replace('-', "0"), &later.repeat(3)]
    {
        assert!(TraceContext::new(Some(other), None).is_none(), "{other}");
    }
    assert!(TraceContext::new(None, Some("a=1")).is_none());
}
