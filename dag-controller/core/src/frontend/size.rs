//! How large a document is where it is stored.

use serde::Serialize;
use std::io;

/// Length of a value as the API server stores it: JSON in which `<`, `>` and `&` are escaped.
#[must_use]
pub fn json_len(value: &impl Serialize) -> usize {
    let mut count = Count(0);
    // Counting cannot fail, and what is no JSON has no length.
    let _ = serde_json::to_writer(&mut count, value);
    count.0
}

struct Count(usize);

impl io::Write for Count {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let escaped = bytes.iter().filter(|b| matches!(b, b'<' | b'>' | b'&')).count();
        self.0 += bytes.len() + escaped * 5;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_length_is_that_of_the_stored_text() {
        assert_eq!(json_len(&json!({"a": [1, "b"]})), r#"{"a":[1,"b"]}"#.len());
        assert_eq!(json_len(&json!("a && b > c")), "\"a \\u0026\\u0026 b \\u003e c\"".len());
    }
}
