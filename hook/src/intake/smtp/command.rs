//! SMTP commands, parsed strictly and without judging addresses further than is needed to repeat them safely.

use gantry_mail::{
    ADDRESS_BYTES_MAX, BodyType, Notify, PARAMETER_BYTES_MAX, Recipient, Ret, SenderParameters,
};

/// Longest command line with its CRLF. RFC 5321, 4.5.3.1.4 says 512; MAIL gains 26 + 17 + 10 + 109 + 11 octets by
/// SIZE, BODY, SMTPUTF8, ENVID and RET, and RCPT 529 by NOTIFY and ORCPT (RFC 1870, 6152, 6531, 3461); addresses may
/// be longer here than there.
pub(super) const COMMAND_BYTES_MAX: usize = 2_048;
/// Longest name in HELO and EHLO. RFC 5321, 4.5.3.1.2.
const HELO_BYTES_MAX: usize = 255;

/// The attributes that XFORWARD may carry, in the order in which EHLO offers them.
pub(super) const XFORWARD_ATTRIBUTES: [&str; 7] =
    ["NAME", "ADDR", "PORT", "PROTO", "HELO", "IDENT", "SOURCE"];

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Command {
    Helo(String),
    Ehlo(String),
    /// RFC 2033, 4.1.
    Lhlo(String),
    Mail(Box<Mail>),
    Rcpt(Box<Recipient>),
    Data,
    Rset,
    Noop,
    Help,
    Vrfy,
    Quit,
    /// RFC 3207.
    StartTls,
    /// Attributes, decoded.
    XForward(Vec<(String, String)>),
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Mail {
    pub(super) sender: String,
    pub(super) parameters: SenderParameters,
    /// SIZE= (RFC 1870).
    pub(super) size: Option<u64>,
}

/// The extensions that this client was offered: parameters of others are refused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Extensions {
    pub(super) size: bool,
    pub(super) eight_bit_mime: bool,
    pub(super) smtputf8: bool,
    pub(super) dsn: bool,
    pub(super) xforward: bool,
}

/// What is wrong with a command: the reply that says so.
pub(super) type Wrong = &'static str;

const SYNTAX: Wrong = "501 5.5.4 Syntax error in parameters";
const BAD_PARAMETER: Wrong = "501 5.5.4 Bad value of a parameter";
const NO_SUCH_PARAMETER: Wrong = "555 5.5.4 Parameter not known or not offered";
const TWICE: Wrong = "501 5.5.4 A parameter stands twice";
const BAD_ADDRESS: Wrong = "501 5.1.7 Bad address syntax";
const ADDRESS_TOO_LONG: Wrong = "501 5.1.7 Address too long";
const NOT_ASCII: Wrong = "553 5.6.7 A non-ASCII address needs SMTPUTF8";
const CONTROL: Wrong = "501 5.5.2 Control characters in a command";
pub(super) const UNKNOWN: Wrong = "500 5.5.2 Command not recognised";

impl Command {
    /// Parses a line without its CRLF. `utf8` tells that the transaction was begun with SMTPUTF8.
    ///
    /// # Errors
    /// The reply to give.
    pub(super) fn parse(line: &[u8], extensions: &Extensions, utf8: bool) -> Result<Self, Wrong> {
        let line = std::str::from_utf8(line).map_err(|_| CONTROL)?;
        // Those beyond ASCII (U+0080 to U+009F), too: they could not be said to the next hop again.
        if line.chars().any(char::is_control) {
            return Err(CONTROL);
        }
        let (verb, rest) = line.split_once(' ').unwrap_or((line, ""));
        let rest = rest.trim_matches(' ');
        let alone = |command| if rest.is_empty() { Ok(command) } else { Err(SYNTAX) };
        match verb.to_ascii_uppercase().as_str() {
            "HELO" => Ok(Self::Helo(helo(rest)?)),
            "EHLO" => Ok(Self::Ehlo(helo(rest)?)),
            "LHLO" => Ok(Self::Lhlo(helo(rest)?)),
            "MAIL" => Ok(Self::Mail(Box::new(mail(rest, extensions)?))),
            "RCPT" => Ok(Self::Rcpt(Box::new(rcpt(rest, extensions, utf8)?))),
            "DATA" => alone(Self::Data),
            "RSET" => alone(Self::Rset),
            "QUIT" => alone(Self::Quit),
            "STARTTLS" => alone(Self::StartTls),
            // RFC 5321, 4.1.1.9: what stands behind NOOP is ignored.
            "NOOP" => Ok(Self::Noop),
            "HELP" => Ok(Self::Help),
            "VRFY" if !rest.is_empty() => Ok(Self::Vrfy),
            "VRFY" => Err(SYNTAX),
            "XFORWARD" if extensions.xforward => xforward(rest).map(Self::XForward),
            _ => Err(UNKNOWN),
        }
    }
}

/// A domain or an address literal; underscores and the like are too common to be refused.
fn helo(rest: &str) -> Result<String, Wrong> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._:[]".contains(&b);
    if rest.is_empty() || rest.len() > HELO_BYTES_MAX || !rest.bytes().all(plain) {
        return Err("501 5.5.4 HELO and EHLO take a domain or an address literal");
    }
    Ok(rest.to_owned())
}

fn mail(rest: &str, extensions: &Extensions) -> Result<Mail, Wrong> {
    let (sender, parameters) = path(rest, "FROM:")?;
    let mut mail = Mail { sender, ..Mail::default() };
    let said = &mut mail.parameters;
    for (keyword, value) in each_parameter(parameters)? {
        match (keyword.as_str(), value) {
            ("SIZE", Some(value)) if extensions.size => {
                // RFC 1870, 4: up to 20 digits, which is more than fits, and then too large anyway.
                if value.len() > 20 || !value.bytes().all(|b| b.is_ascii_digit()) {
                    return Err(BAD_PARAMETER);
                }
                once(&mut mail.size, value.parse().unwrap_or(u64::MAX))?;
            }
            ("BODY", Some(value)) if extensions.eight_bit_mime => {
                let body = match value.to_ascii_uppercase().as_str() {
                    "7BIT" => BodyType::SevenBit,
                    "8BITMIME" => BodyType::EightBitMime,
                    _ => return Err(BAD_PARAMETER),
                };
                once(&mut said.body, body)?;
            }
            ("SMTPUTF8", None) if extensions.smtputf8 && !said.smtputf8 => said.smtputf8 = true,
            ("RET", Some(value)) if extensions.dsn => {
                let ret = match value.to_ascii_uppercase().as_str() {
                    "FULL" => Ret::Full,
                    "HDRS" => Ret::Headers,
                    _ => return Err(BAD_PARAMETER),
                };
                once(&mut said.ret, ret)?;
            }
            ("ENVID", Some(value)) if extensions.dsn => once(&mut said.envid, xtext(value)?)?,
            _ => return Err(NO_SUCH_PARAMETER),
        }
    }
    if !mail.sender.is_ascii() && !mail.parameters.smtputf8 {
        return Err(NOT_ASCII);
    }
    Ok(mail)
}

fn rcpt(rest: &str, extensions: &Extensions, utf8: bool) -> Result<Recipient, Wrong> {
    let (address, parameters) = path(rest, "TO:")?;
    if address.is_empty() {
        return Err("501 5.1.3 A recipient is needed");
    }
    if !address.is_ascii() && !utf8 {
        return Err(NOT_ASCII);
    }
    let mut recipient = Recipient { address, ..Recipient::default() };
    for (keyword, value) in each_parameter(parameters)? {
        match (keyword.as_str(), value) {
            ("NOTIFY", Some(value)) if extensions.dsn => {
                once(&mut recipient.notify, notify(value)?)?;
            }
            ("ORCPT", Some(value)) if extensions.dsn => {
                once(&mut recipient.orcpt, orcpt(value, utf8)?)?;
            }
            _ => return Err(NO_SUCH_PARAMETER),
        }
    }
    Ok(recipient)
}

/// `FROM:<path> parameters`: gives the path without brackets and source route, and the parameters.
fn path<'a>(rest: &'a str, keyword: &str) -> Result<(String, &'a str), Wrong> {
    let (head, rest) = rest.split_at_checked(keyword.len()).ok_or(SYNTAX)?;
    if !head.eq_ignore_ascii_case(keyword) {
        return Err(SYNTAX);
    }
    // RFC 5321, 4.1.1.2 permits no space behind the colon, but enough clients put one there.
    let rest = rest.trim_start_matches(' ').strip_prefix('<').ok_or(BAD_ADDRESS)?;
    let end = path_end(rest)?;
    let (inside, rest) = rest.split_at_checked(end).ok_or(BAD_ADDRESS)?;
    let parameters = rest.strip_prefix('>').ok_or(BAD_ADDRESS)?;
    if !parameters.is_empty() && !parameters.starts_with(' ') {
        return Err(BAD_ADDRESS);
    }
    let address = match inside.strip_prefix('@') {
        // RFC 5321, appendix C: a source route is to be accepted and ignored.
        // It has domains and nothing else, so that its colon is not one of a quoted local part or of a literal.
        Some(inside) => match inside.split_once(':') {
            Some((route, address)) if !route.contains(['"', '[']) => address,
            _ => return Err(BAD_ADDRESS),
        },
        None => inside,
    };
    if address.len() > ADDRESS_BYTES_MAX {
        return Err(ADDRESS_TOO_LONG);
    }
    // What begins with @ would be read as a route once more by the next hop.
    if inside.starts_with('@') && (address.is_empty() || address.starts_with('@')) {
        return Err(BAD_ADDRESS);
    }
    Ok((address.to_owned(), parameters))
}

/// Where the closing bracket stands: quoted ones do not count.
fn path_end(rest: &str) -> Result<usize, Wrong> {
    let (mut quoted, mut escaped) = (false, false);
    for (at, byte) in rest.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            b'>' if !quoted => return Ok(at),
            b' ' | b'<' | b'\\' if !quoted => return Err(BAD_ADDRESS),
            _ => {}
        }
    }
    Err(BAD_ADDRESS)
}

/// `keyword[=value]`, keywords in upper case. RFC 5321, 4.1.2.
fn each_parameter(parameters: &str) -> Result<Vec<(String, Option<&str>)>, Wrong> {
    let mut found: Vec<(String, Option<&str>)> = Vec::new();
    for parameter in parameters.split(' ').filter(|word| !word.is_empty()) {
        let (keyword, value) = match parameter.split_once('=') {
            Some((keyword, value)) => (keyword, Some(value)),
            None => (parameter, None),
        };
        let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
        if keyword.is_empty() || !keyword.bytes().all(plain) || value == Some("") {
            return Err(SYNTAX);
        }
        let keyword = keyword.to_ascii_uppercase();
        if found.iter().any(|(known, _)| *known == keyword) {
            return Err(TWICE);
        }
        found.push((keyword, value));
    }
    Ok(found)
}

fn once<T>(place: &mut Option<T>, value: T) -> Result<(), Wrong> {
    match place.replace(value) {
        None => Ok(()),
        Some(_) => Err(TWICE),
    }
}

fn notify(value: &str) -> Result<Notify, Wrong> {
    let mut notify = Notify::default();
    if value.eq_ignore_ascii_case("NEVER") {
        return Ok(notify);
    }
    for word in value.split(',') {
        let wish = match word.to_ascii_uppercase().as_str() {
            "SUCCESS" => &mut notify.success,
            "FAILURE" => &mut notify.failure,
            "DELAY" => &mut notify.delay,
            _ => return Err(BAD_PARAMETER),
        };
        if std::mem::replace(wish, true) {
            return Err(BAD_PARAMETER);
        }
    }
    Ok(notify)
}

/// `type;xtext`, still encoded. RFC 3461, 4.2; with SMTPUTF8 the address may be in UTF-8 (RFC 6533, 3).
fn orcpt(value: &str, utf8: bool) -> Result<String, Wrong> {
    let (kind, address) = value.split_once(';').ok_or(BAD_PARAMETER)?;
    let atom = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
    if kind.is_empty() || !kind.bytes().all(atom) || address.is_empty() {
        return Err(BAD_PARAMETER);
    }
    let utf8_address = utf8 && kind.eq_ignore_ascii_case("utf-8");
    if utf8_address && value.len() <= PARAMETER_BYTES_MAX {
        return Ok(value.to_owned());
    }
    xtext(address)?;
    if value.len() > PARAMETER_BYTES_MAX {
        return Err(BAD_PARAMETER);
    }
    Ok(value.to_owned())
}

/// Checks xtext and leaves it encoded.
fn xtext(value: &str) -> Result<String, Wrong> {
    match gantry_mail::xtext::decode(value) {
        Ok(_) if value.len() <= PARAMETER_BYTES_MAX => Ok(value.to_owned()),
        _ => Err(BAD_PARAMETER),
    }
}

/// `NAME=value ...` with values in xtext, as Postfix speaks it. What is decoded must fit on a line again.
fn xforward(rest: &str) -> Result<Vec<(String, String)>, Wrong> {
    let mut attributes = Vec::new();
    for (name, value) in each_parameter(rest)? {
        let value = value.ok_or(SYNTAX)?;
        if !XFORWARD_ATTRIBUTES.contains(&name.as_str()) {
            return Err("501 5.5.4 No such attribute of XFORWARD");
        }
        let decoded = gantry_mail::xtext::decode(value)
            .ok()
            .and_then(|bytes| String::from_utf8(bytes).ok())
            .filter(|text| text.len() <= PARAMETER_BYTES_MAX)
            .filter(|text| !text.chars().any(char::is_control))
            .ok_or(BAD_PARAMETER)?;
        attributes.push((name, decoded));
    }
    if attributes.is_empty() { Err(SYNTAX) } else { Ok(attributes) }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

    use super::*;

    const ALL: Extensions =
        Extensions { size: true, eight_bit_mime: true, smtputf8: true, dsn: true, xforward: true };

    fn parse(line: &str) -> Result<Command, Wrong> {
        Command::parse(line.as_bytes(), &ALL, false)
    }

    fn sender(line: &str) -> Mail {
        let Ok(Command::Mail(mail)) = parse(line) else { panic!("{line}: {:?}", parse(line)) };
        *mail
    }

    fn recipient(line: &str, utf8: bool) -> Recipient {
        let Ok(Command::Rcpt(recipient)) = Command::parse(line.as_bytes(), &ALL, utf8) else {
            panic!("{line}")
        };
        *recipient
    }

    #[test]
    fn verbs_are_known_in_any_case() {
        assert_eq!(parse("ehlo a.example"), Ok(Command::Ehlo("a.example".into())));
        assert_eq!(parse("Helo [IPv6:::1]"), Ok(Command::Helo("[IPv6:::1]".into())));
        assert_eq!(parse("data"), Ok(Command::Data));
        assert_eq!(parse("StartTLS"), Ok(Command::StartTls));
        assert_eq!(parse("NOOP and more"), Ok(Command::Noop));
        for wrong in
            ["", " ", "DATA x", "QUIT now", "EHLO", "EHLO a(b)", "BDAT 5 LAST", "STARTTLS now"]
        {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
        assert_eq!(Command::parse(b"NOOP \x00", &ALL, false), Err(CONTROL));
        assert_eq!(Command::parse(b"NOOP \xff", &ALL, false), Err(CONTROL));
        let beyond_ascii = "RCPT TO:<a\u{85}@b.example>".as_bytes();
        assert_eq!(Command::parse(beyond_ascii, &ALL, true), Err(CONTROL));
    }

    #[test]
    fn every_parameter_of_mail_is_kept() {
        let mail =
            sender("MAIL FROM:<a@b.example> SIZE=123 body=8bitmime SMTPUTF8 RET=HDRS ENVID=QQ+2B1");
        assert_eq!(mail.sender, "a@b.example");
        assert_eq!(mail.size, Some(123));
        assert_eq!(
            mail.parameters,
            SenderParameters {
                body: Some(BodyType::EightBitMime),
                smtputf8: true,
                ret: Some(Ret::Headers),
                envid: Some("QQ+2B1".into()),
            }
        );
        assert_eq!(sender("mail from: <>"), Mail::default());
        assert_eq!(sender("MAIL FROM:<> SIZE=99999999999999999999").size, Some(u64::MAX));
    }

    #[test]
    fn paths_are_read_without_judging_them() {
        assert_eq!(sender("MAIL FROM:<@x.example,@y.example:a@b.example>").sender, "a@b.example");
        assert_eq!(sender(r#"MAIL FROM:<"a> b\"<"@c.example>"#).sender, r#""a> b\"<"@c.example"#);
        assert_eq!(recipient("RCPT TO:<postmaster>", false).address, "postmaster");
        assert_eq!(recipient("RCPT TO:<jö@b.example>", true).address, "jö@b.example");
        for wrong in [
            "MAIL",
            "MAIL FROM",
            "MAIL FROM:",
            "MAIL FROM:a@b.example",
            "MAIL FROM:<a@b.example",
            "MAIL FROM:<a b@c.example>",
            "MAIL FROM:<a@b.example>x",
            "MAIL FROM:<a@b.example>SIZE=1",
            "MAIL FROM:<<a@b.example>>",
            "MAIL FROM:<@route>",
            "MAIL FROM:<@route:>",
            "MAIL FROM:<@route:@route:a@b.example>",
            "MAIL FROM:<@\"x:y\"@b.example>",
            "MAIL FROM:<@[IPv6:::1]:a@b.example>",
            "MAIL FROM:<\"a@b.example>",
            "MAIL FROM:<jö@b.example>",
            "RCPT TO:<>",
            "RCPT TO:<jö@b.example>",
        ] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
        let long = format!("MAIL FROM:<{}@b.example>", "a".repeat(ADDRESS_BYTES_MAX));
        assert_eq!(parse(&long), Err(ADDRESS_TOO_LONG));
    }

    #[test]
    fn every_parameter_of_rcpt_is_kept() {
        let full = recipient("RCPT TO:<a@b> NOTIFY=delay,FAILURE ORCPT=rfc822;a+2B@b", false);
        assert_eq!(full.notify, Some(Notify { success: false, failure: true, delay: true }));
        assert_eq!(full.orcpt.as_deref(), Some("rfc822;a+2B@b"));
        assert_eq!(recipient("RCPT TO:<a@b> NOTIFY=NEVER", false).notify, Some(Notify::default()));
        let utf8 = recipient("RCPT TO:<a@b> ORCPT=utf-8;jö@b", true);
        assert_eq!(utf8.orcpt.as_deref(), Some("utf-8;jö@b"));
    }

    #[test]
    fn wrong_parameters_are_refused() {
        for wrong in [
            "SIZE",
            "SIZE=",
            "SIZE=-1",
            "SIZE=1 SIZE=1",
            "BODY=BINARYMIME",
            "RET=ALL",
            "ENVID=a=b",
            "ENVID=+zz",
            "SMTPUTF8=1",
            "SMTPUTF8 SMTPUTF8",
            "AUTH=<>",
            "=x",
            "X_Y=1",
        ] {
            assert!(parse(&format!("MAIL FROM:<a@b> {wrong}")).is_err(), "{wrong}");
        }
        for wrong in [
            "NOTIFY=NEVER,DELAY",
            "NOTIFY=",
            "NOTIFY=DELAY,DELAY",
            "ORCPT=a@b",
            "ORCPT=;a",
            "ORCPT=rfc822;+",
            "SIZE=1",
        ] {
            assert!(parse(&format!("RCPT TO:<a@b> {wrong}")).is_err(), "{wrong}");
        }
        let long = format!("MAIL FROM:<> ENVID={}", "a".repeat(PARAMETER_BYTES_MAX + 1));
        assert!(parse(&long).is_err());
    }

    #[test]
    fn what_was_not_offered_is_refused() {
        let none = Extensions::default();
        for parameter in ["SIZE=1", "BODY=7BIT", "SMTPUTF8", "RET=FULL", "ENVID=a"] {
            let line = format!("MAIL FROM:<a@b> {parameter}");
            assert_eq!(Command::parse(line.as_bytes(), &none, false), Err(NO_SUCH_PARAMETER));
        }
        for parameter in ["NOTIFY=NEVER", "ORCPT=rfc822;a@b"] {
            let line = format!("RCPT TO:<a@b> {parameter}");
            assert_eq!(Command::parse(line.as_bytes(), &none, false), Err(NO_SUCH_PARAMETER));
        }
        assert_eq!(Command::parse(b"XFORWARD NAME=a", &none, false), Err(UNKNOWN));
    }

    #[test]
    fn xforward_is_decoded_and_bounded() {
        let attributes = vec![
            ("NAME".to_owned(), "a+b.example".to_owned()),
            ("IDENT".to_owned(), "[UNAVAILABLE]".to_owned()),
        ];
        let line = "XFORWARD name=a+2Bb.example IDENT=[UNAVAILABLE]";
        assert_eq!(parse(line), Ok(Command::XForward(attributes)));
        for wrong in [
            "XFORWARD",
            "XFORWARD NAME",
            "XFORWARD NAME=",
            "XFORWARD FOO=a",
            "XFORWARD NAME=a NAME=b",
            "XFORWARD NAME=a+0D+0Ab",
            "XFORWARD NAME=+ff",
        ] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
