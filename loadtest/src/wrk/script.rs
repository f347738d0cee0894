//! Builds the Lua script from which wrk reads its request.

use std::fmt::Write;

use hyper::Request;
use hyper::header::HOST;

/// Returns the script of a request. It defines no function, so that wrk builds the request once. The target and `Host` are left
/// out: they are in the URL that wrk is given.
pub(super) fn of<B>(request: &Request<B>, body: &[u8]) -> String {
    let mut script = format!("wrk.method = {}\n", quoted(request.method().as_str().as_bytes()));
    if !body.is_empty() {
        script += &format!("wrk.body = {}\n", quoted(body));
    }
    for (name, value) in request.headers().iter().filter(|(name, _)| *name != HOST) {
        script += &format!("wrk.headers[{}] = {}\n", quoted(name.as_ref()), quoted(value.as_bytes()));
    }
    script
}

/// Returns a Lua string; special and non-ASCII bytes become decimal escapes.
fn quoted(text: &[u8]) -> String {
    let mut string = String::from('"');
    for byte in text {
        match byte {
            b' '..=b'~' if !b"\"\\".contains(byte) => string.push(char::from(*byte)),
            // Writing to a string cannot fail.
            _ => drop(write!(string, "\\{byte:03}")),
        }
    }
    string.push('"');
    string
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_contains_the_whole_request() {
        let request = Request::post("/a?b=c").header(HOST, "here").header("if-none-match", "\"7\\\"");
        let script = of(&request.body(()).unwrap(), b"\"one\ntwo\"");
        let wanted = "wrk.method = \"POST\"\nwrk.body = \"\\034one\\010two\\034\"\n\
                      wrk.headers[\"if-none-match\"] = \"\\0347\\092\\034\"\n";
        assert_eq!(script, wanted);
        assert_eq!(of(&Request::get("/").body(()).unwrap(), b""), "wrk.method = \"GET\"\n");
    }
}
