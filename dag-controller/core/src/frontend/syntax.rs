//! The syntaxes of Kubernetes that fields must keep (apimachinery `util/validation`).

/// A DNS-1123 label: lower-case letters, digits and hyphens, at most 63, no hyphen at either end.
pub(super) fn is_label(text: &str) -> bool {
    text.len() <= 63 && !text.is_empty() && is_label_of_any_length(text)
}

/// A DNS-1123 label but for its length.
pub(super) fn is_label_of_any_length(text: &str) -> bool {
    let inner = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-';
    text.bytes().all(inner) && !text.starts_with('-') && !text.ends_with('-')
}

/// A DNS-1123 subdomain: labels joined by dots, at most 253.
pub(super) fn is_subdomain(text: &str) -> bool {
    text.len() <= 253 && text.split('.').all(|part| !part.is_empty() && is_label_of_any_length(part))
}

/// A value of a label: empty, or at most 63 letters, digits, `-`, `_` and `.`, the first and last alphanumeric.
pub(super) fn is_label_value(text: &str) -> bool {
    text.is_empty() || is_qualified_part(text)
}

/// A key of a label or annotation: an optional subdomain and `/`, then a name.
pub(super) fn is_label_key(text: &str) -> bool {
    match text.split_once('/') {
        Some((prefix, name)) => is_subdomain(prefix) && is_qualified_part(name),
        None => is_qualified_part(text),
    }
}

fn is_qualified_part(text: &str) -> bool {
    let ends = |c: Option<u8>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    text.len() <= 63
        && ends(text.bytes().next())
        && ends(text.bytes().next_back())
        && text.bytes().all(|c| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_' | b'.'))
}

/// The name of an environment variable: printable ASCII without `=`.
pub(super) fn is_env_name(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|c| (0x20..0x7f).contains(&c) && c != b'=')
}

/// A non-negative Quantity: digits with an optional point, then an exponent or a suffix.
pub(super) fn is_quantity(text: &str) -> bool {
    let text = text.strip_prefix('+').unwrap_or(text);
    let number_len = text.bytes().take_while(|c| c.is_ascii_digit() || *c == b'.').count();
    let (number, suffix) = text.split_at(number_len);
    let digits = number.bytes().filter(u8::is_ascii_digit).count();
    if digits == 0 || number.bytes().filter(|c| *c == b'.').count() > 1 {
        return false;
    }
    match suffix {
        "" | "n" | "u" | "m" | "k" | "M" | "G" | "T" | "P" | "E" => true,
        "Ki" | "Mi" | "Gi" | "Ti" | "Pi" | "Ei" => true,
        exponent => exponent
            .strip_prefix(['e', 'E'])
            .map(|rest| rest.strip_prefix(['+', '-']).unwrap_or(rest))
            .is_some_and(|rest| !rest.is_empty() && rest.len() <= 3 && rest.bytes().all(|c| c.is_ascii_digit())),
    }
}

/// An absolute path in a container, without `:` and `..`, in its plainest form; `None` when it is none.
pub(super) fn mount_path(text: &str) -> Option<String> {
    if !text.starts_with('/') || text.contains([':', '\0']) || text.split('/').any(|part| part == "..") {
        return None;
    }
    let parts: Vec<&str> = text.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
    Some(format!("/{}", parts.join("/")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(is: fn(&str) -> bool, good: &[&str], bad: &[&str]) {
        for text in good {
            assert!(is(text), "{text:?} is good");
        }
        for text in bad {
            assert!(!is(text), "{text:?} is bad");
        }
    }

    #[test]
    fn the_syntaxes_of_kubernetes() {
        let long = "a".repeat(64);
        check(is_label, &["a", "a-b", "0", "a1"], &["", "-a", "a-", "A", "a_b", "a.b", "ä", &long]);
        check(is_subdomain, &["a", "a.b-c.d"], &["", ".a", "a.", "a..b", "A.b", "-a.b"]);
        check(is_label_value, &["", "A_b.c-1"], &["-a", "a-", "a b", "ä", &long]);
        check(is_label_key, &["a", "a.b/C_d", "nvidia.com/gpu.product"], &["", "/a", "a/", "a/b/c", "A.b/c"]);
        check(is_env_name, &["A", "a.b-c", "A B"], &["", "A=B", "A\n", "Ä"]);
        check(
            is_quantity,
            &["1", "0.5", "500m", "10Gi", "1e18", "1E3", ".5", "+1", "1E"],
            &["", "-1", "1.2.3", "Gi", "1 Gi", "1gi", "1e", "1ee3"],
        );
    }

    #[test]
    fn mount_paths_are_compared_in_their_plainest_form() {
        assert_eq!(mount_path("/mnt//a/./b/").as_deref(), Some("/mnt/a/b"));
        assert_eq!(mount_path("/").as_deref(), Some("/"));
        for bad in ["", "mnt", "/a:b", "/a/../b", "./a"] {
            assert_eq!(mount_path(bad), None, "{bad}");
        }
    }
}
