//! From text to tokens.

use crate::CompileError;
use smol_str::SmolStr;

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Token {
    Ident(SmolStr),
    /// Between backquotes; only as a field.
    Quoted(SmolStr),
    Int(u64),
    Uint(u64),
    Double(f64),
    String(SmolStr),
    Bytes(Vec<u8>),
    Symbol(&'static str),
}

/// Longer symbols first.
const SYMBOLS: [&str; 24] = [
    "==", "!=", "<=", ">=", "&&", "||", "<", ">", "[", "]", "{", "}", "(", ")", ".", ",", "-", "!", "?", ":", "+", "*",
    "/", "%",
];

/// The tokens of an expression, each with the byte at which it starts.
pub(crate) fn tokens(text: &str) -> Result<Vec<(Token, usize)>, CompileError> {
    let mut lexer = Lexer { text, at: 0 };
    let mut tokens = Vec::new();
    while let Some(token) = lexer.next()? {
        tokens.push(token);
    }
    Ok(tokens)
}

struct Lexer<'a> {
    text: &'a str,
    at: usize,
}

impl Lexer<'_> {
    fn next(&mut self) -> Result<Option<(Token, usize)>, CompileError> {
        self.skip_blanks();
        let start = self.at;
        let rest = &self.text[start..];
        let Some(first) = rest.chars().next() else { return Ok(None) };
        let decimal = first == '.' && rest[1..].starts_with(|c: char| c.is_ascii_digit());
        let token = if first.is_ascii_digit() || decimal {
            self.number()?
        } else if let Some(literal) = self.literal()? {
            literal
        } else if first.is_ascii_alphabetic() || first == '_' {
            Token::Ident(self.take_while(|c| c.is_ascii_alphanumeric() || c == '_').into())
        } else if first == '`' {
            self.quoted()?
        } else if let Some(symbol) = SYMBOLS.into_iter().find(|symbol| rest.starts_with(symbol)) {
            self.at += symbol.len();
            Token::Symbol(symbol)
        } else {
            return Err(CompileError::syntax(start, format!("unexpected character {first:?}")));
        };
        Ok(Some((token, start)))
    }

    fn skip_blanks(&mut self) {
        loop {
            self.take_while(|c| matches!(c, ' ' | '\t' | '\r' | '\n' | '\u{c}'));
            if !self.text[self.at..].starts_with("//") {
                return;
            }
            self.take_while(|c| c != '\n');
        }
    }

    fn take_while(&mut self, wanted: impl Fn(char) -> bool) -> &str {
        let start = self.at;
        let rest = &self.text[start..];
        self.at += rest.find(|c| !wanted(c)).unwrap_or(rest.len());
        &self.text[start..self.at]
    }

    fn number(&mut self) -> Result<Token, CompileError> {
        let start = self.at;
        let wrong = |what: &str| CompileError::syntax(start, format!("number {what}"));
        if self.text[start..].starts_with("0x") {
            self.at += 2;
            let digits = self.take_while(|c| c.is_ascii_hexdigit()).to_owned();
            let value = u64::from_str_radix(&digits, 16).map_err(|_| wrong("is no hexadecimal number of 64 bits"))?;
            return Ok(if self.eat(&['u', 'U']) { Token::Uint(value) } else { Token::Int(value) });
        }
        let mut double = false;
        self.take_while(|c| c.is_ascii_digit());
        let rest = &self.text[self.at..];
        if rest.starts_with('.') && rest[1..].starts_with(|c: char| c.is_ascii_digit()) {
            double = true;
            self.at += 1;
            self.take_while(|c| c.is_ascii_digit());
        }
        double |= self.exponent();
        let text = &self.text[start..self.at];
        if double {
            let value: f64 = text.parse().map_err(|_| wrong("is no number"))?;
            return if value.is_finite() { Ok(Token::Double(value)) } else { Err(wrong("is out of range")) };
        }
        let value = text.parse().map_err(|_| wrong("does not fit into 64 bits"))?;
        Ok(if self.eat(&['u', 'U']) { Token::Uint(value) } else { Token::Int(value) })
    }

    fn exponent(&mut self) -> bool {
        let rest = &self.text[self.at..];
        let Some(digits) = rest.strip_prefix(['e', 'E']) else { return false };
        let unsigned = digits.strip_prefix(['+', '-']).unwrap_or(digits);
        if !unsigned.starts_with(|c: char| c.is_ascii_digit()) {
            return false;
        }
        self.at += rest.len() - unsigned.len();
        self.take_while(|c| c.is_ascii_digit());
        true
    }

    fn eat(&mut self, any: &[char]) -> bool {
        let there = self.text[self.at..].starts_with(any);
        self.at += usize::from(there);
        there
    }

    fn quoted(&mut self) -> Result<Token, CompileError> {
        let start = self.at;
        self.at += 1;
        let name = self.take_while(|c| c.is_ascii_alphanumeric() || "_.-/ ".contains(c)).to_owned();
        if name.is_empty() || !self.eat(&['`']) {
            return Err(CompileError::syntax(start, "a quoted field name has no end"));
        }
        Ok(Token::Quoted(name.into()))
    }

    /// A string or bytes, with the prefixes `r` and `b`.
    fn literal(&mut self) -> Result<Option<Token>, CompileError> {
        let start = self.at;
        let rest = &self.text[start..];
        let quoted = |at: usize| matches!(rest.as_bytes().get(at), Some(b'"' | b'\''));
        let prefix = (0..3).find(|at| quoted(*at)).and_then(|at| rest.get(..at));
        let (bytes, raw) = match prefix.map(str::to_ascii_lowercase).as_deref() {
            Some("") => (false, false),
            Some("r") => (false, true),
            Some("b") => (true, false),
            Some("br") => (true, true),
            _ => return Ok(None),
        };
        let quotes = &rest[prefix.map_or(0, str::len)..];
        let quote = ["\"\"\"", "'''", "\"", "'"].into_iter().find(|quote| quotes.starts_with(quote)).unwrap_or("\"");
        let body = &quotes[quote.len()..];
        let Some(length) = end(body, quote, raw) else {
            return Err(CompileError::syntax(start, "a string has no end"));
        };
        self.at = start + (rest.len() - body.len()) + length + quote.len();
        let text = &body[..length];
        let content = if raw {
            text.as_bytes().to_vec()
        } else {
            unescape(text, bytes).map_err(|what| CompileError::syntax(start, what))?
        };
        Ok(Some(if bytes { Token::Bytes(content) } else { Token::String(String::from_utf8_lossy(&content).into()) }))
    }
}

/// Where the closing quote is.
fn end(body: &str, quote: &str, raw: bool) -> Option<usize> {
    let mut skip = false;
    for (at, c) in body.char_indices() {
        if std::mem::take(&mut skip) {
            continue;
        }
        if body[at..].starts_with(quote) {
            return Some(at);
        }
        if quote.len() == 1 && matches!(c, '\n' | '\r') {
            return None;
        }
        skip = c == '\\' && !raw;
    }
    None
}

fn unescape(text: &str, bytes: bool) -> Result<Vec<u8>, String> {
    let mut out = Vec::with_capacity(text.len());
    let mut chars = text.chars();
    let push = |out: &mut Vec<u8>, code: u32, byte: bool| {
        if byte && bytes {
            out.push(u8::try_from(code).map_err(|_| "an escaped byte is out of range".to_owned())?);
            return Ok(());
        }
        let c = char::from_u32(code).ok_or_else(|| format!("\\u{{{code:x}}} is no character"))?;
        out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
        Ok::<(), String>(())
    };
    while let Some(c) = chars.next() {
        if c != '\\' {
            push(&mut out, u32::from(c), false)?;
            continue;
        }
        let escaped = chars.next().unwrap_or('\\');
        let digits = |radix: u32, count: usize, first: &str, chars: &mut std::str::Chars<'_>| {
            let text: String = first.chars().chain(chars.by_ref().take(count)).collect();
            let whole = text.len() == count + first.len();
            whole
                .then(|| u32::from_str_radix(&text, radix).ok())
                .flatten()
                .ok_or_else(|| format!("\\{escaped}{text} is no escape"))
        };
        let (code, byte) = match escaped {
            'a' => (7, false),
            'b' => (8, false),
            'f' => (12, false),
            'n' => (10, false),
            'r' => (13, false),
            't' => (9, false),
            'v' => (11, false),
            '\\' | '\'' | '"' | '?' | '`' => (u32::from(escaped), false),
            'x' | 'X' => (digits(16, 2, "", &mut chars)?, true),
            'u' if !bytes => (digits(16, 4, "", &mut chars)?, false),
            'U' if !bytes => (digits(16, 8, "", &mut chars)?, false),
            '0'..='3' => (digits(8, 2, &escaped.to_string(), &mut chars)?, true),
            other => return Err(format!("\\{other} is no escape")),
        };
        push(&mut out, code, byte)?;
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(text: &str) -> Token {
        let mut all = tokens(text).unwrap();
        assert_eq!(all.len(), 1, "{text}: {all:?}");
        all.remove(0).0
    }

    #[test]
    fn literals_of_every_kind_are_read() {
        assert_eq!(
            [one("0x1F"), one("12u"), one("1.5e3"), one(".5")],
            [Token::Int(31), Token::Uint(12), Token::Double(1500.0), Token::Double(0.5)]
        );
        assert_eq!(one(r#""a\n\x41\u00e9\101""#), Token::String("a\nA\u{e9}A".into()));
        assert_eq!(one(r"r'a\n'"), Token::String(r"a\n".into()));
        assert_eq!(one("'''a'b\n'''"), Token::String("a'b\n".into()));
        assert_eq!(one(r"b'\xff\377'"), Token::Bytes(vec![255, 255]));
        assert_eq!(one("`a.b/c-d`"), Token::Quoted("a.b/c-d".into()));
    }

    #[test]
    fn what_cannot_be_read_is_an_error() {
        for text in ["'a", "\"a\n\"", "'\\q'", "'\\u12'", "@", "0x", "18446744073709551616", "1e999", "``", "'\\ud800'"]
        {
            assert!(tokens(text).is_err(), "{text}");
        }
    }

    #[test]
    fn comments_and_blanks_are_skipped() {
        assert_eq!(tokens(" a // b\n\t+1").unwrap().len(), 3);
    }
}
