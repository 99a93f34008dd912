//! Taking a model out of a Python module that holds it as a bytes literal.

use super::prepare::PrepareError;

/// Returns the bytes that a line `NAME = b'…'` of a Python module assigns, by the escapes that the
/// language reference lists for bytes literals (section 2.4.1.1).
///
/// # Errors
/// [`PrepareError::Literal`] when there is no such line, or the literal does not end or is malformed.
pub fn bytes_literal(module: &[u8], name: &str) -> Result<Vec<u8>, PrepareError> {
    let malformed = |reason| PrepareError::Literal {
        name: name.to_owned(),
        reason,
    };
    let start = format!("{name} = b");
    let mut lines = module.split_inclusive(|byte| *byte == b'\n');
    let mut rest = lines
        .find_map(|line| line.strip_prefix(start.as_bytes()))
        .ok_or_else(|| malformed("no line assigns it"))?
        .iter()
        .copied();
    let quote = rest.next().filter(|byte| matches!(byte, b'\'' | b'"'));
    let quote = quote.ok_or_else(|| malformed("it does not begin with a quotation mark"))?;
    let mut bytes = Vec::with_capacity(rest.len() / 2);
    loop {
        let byte = match rest.next() {
            Some(byte) if byte == quote => return Ok(bytes),
            Some(b'\\') => escaped(&mut rest).ok_or_else(|| malformed("an escape is unknown"))?,
            None | Some(b'\n') => return Err(malformed("it does not end")),
            Some(byte) => byte,
        };
        bytes.push(byte);
    }
}

/// Reads what follows a backslash.
fn escaped(rest: &mut (impl Iterator<Item = u8> + Clone)) -> Option<u8> {
    Some(match rest.next()? {
        b'x' => {
            let pair = [rest.next()?, rest.next()?];
            let [high, low] = pair.map(|byte| char::from(byte).to_digit(16));
            u8::try_from(high? * 16 + low?).ok()?
        }
        first @ b'0'..=b'7' => {
            let mut value = u32::from(first - b'0');
            for _ in 0..2 {
                let next = rest.clone().next();
                let Some(digit @ b'0'..=b'7') = next else {
                    break;
                };
                value = value * 8 + u32::from(digit - b'0');
                rest.next();
            }
            u8::try_from(value).ok()?
        }
        b'a' => 0x07,
        b'b' => 0x08,
        b't' => b'\t',
        b'n' => b'\n',
        b'v' => 0x0b,
        b'f' => 0x0c,
        b'r' => b'\r',
        plain @ (b'\\' | b'\'' | b'"') => plain,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_python_prints_is_read_again() {
        // repr(bytes(range(256))) of Python 3.11, and the escapes that it does not print.
        let module = b"A = 1\nWEIGHTS = b'\\x00\\x7f\\xff\\n\\t\\r\\\\\\'\"~ A'\nB = b\"'\\0\\12\\377\\a\\b\\v\\f\\\"\"\n";
        let weights = bytes_literal(module, "WEIGHTS").unwrap();
        assert_eq!(weights, b"\x00\x7f\xff\n\t\r\\'\"~ A");
        let others = bytes_literal(module, "B").unwrap();
        assert_eq!(others, b"'\x00\x0a\xff\x07\x08\x0b\x0c\"");
    }

    #[test]
    fn what_is_no_literal_is_refused() {
        for (module, reason) in [
            (&b"OTHER = b'a'"[..], "no line assigns it"),
            (b"A = bytes()", "it does not begin with a quotation mark"),
            (b"A = b'abc", "it does not end"),
            (b"A = b'abc\n'", "it does not end"),
            (b"A = b'\\", "an escape is unknown"),
            (b"A = b'\\x1'", "an escape is unknown"),
            (b"A = b'\\q'", "an escape is unknown"),
            (b"A = b'\\400'", "an escape is unknown"),
        ] {
            let error = bytes_literal(module, "A").unwrap_err();
            assert!(error.to_string().contains(reason), "{error}");
        }
    }
}
