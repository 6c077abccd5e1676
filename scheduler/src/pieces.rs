//! Takes a list of the API apart while it comes: its objects one by one, whole, before the rest of it is here.
//!
//! ```text
//!   {"kind":"PodList","metadata":{...},"items":[{...},{...},{.. | .}, ... ]}
//!                               Metadata        Item  Item    ^ the next piece completes it
//! ```
//! Only brackets and strings are looked at; what stands between them is for the one who decodes it to judge. O(bytes), and
//! memory for the longest object.

/// What a list consists of.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Part<'a> {
    /// The list's own metadata, as JSON.
    Metadata(&'a [u8]),
    /// One object, as JSON.
    Item(&'a [u8]),
}

/// What a value at the top of the list is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Section {
    Metadata,
    Items,
    Other,
}

/// A list that is taken apart.
#[derive(Debug)]
pub(crate) struct Pieces {
    buffer: Vec<u8>,
    /// Bytes of the buffer that were looked at.
    seen: usize,
    /// Where the part that is being read starts.
    start: Option<usize>,
    /// Open brackets.
    depth: usize,
    /// Where the string that is being read starts, after its quotation mark.
    string: Option<usize>,
    /// The last byte was a backslash that escapes the next.
    escaped: bool,
    section: Section,
    complete: bool,
}

impl Pieces {
    pub(crate) fn new() -> Self {
        Self {
            buffer: Vec::new(),
            seen: 0,
            start: None,
            depth: 0,
            string: None,
            escaped: false,
            section: Section::Other,
            complete: false,
        }
    }

    /// The next bytes of the list. Everything before must have been taken by [`Pieces::next`].
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        let kept = self.start.or(self.string).unwrap_or(self.seen);
        self.buffer.drain(..kept);
        self.seen -= kept;
        self.start = self.start.map(|start| start - kept);
        self.string = self.string.map(|start| start - kept);
        self.buffer.extend_from_slice(bytes);
    }

    /// The next part that is here whole.
    pub(crate) fn next(&mut self) -> Option<Part<'_>> {
        while self.seen < self.buffer.len() {
            if self.string.is_some() {
                self.read_string();
                continue;
            }
            let at = self.seen;
            self.seen += 1;
            match self.buffer[at] {
                b'"' => self.string = Some(at + 1),
                b'{' | b'[' => self.open(at),
                b'}' | b']' => {
                    self.depth = self.depth.saturating_sub(1);
                    self.complete |= self.depth == 0;
                    let top = if self.section == Section::Items { 2 } else { 1 };
                    if self.depth == top
                        && let Some(start) = self.start.take()
                    {
                        let part = &self.buffer[start..=at];
                        return Some(match self.section {
                            Section::Metadata => Part::Metadata(part),
                            Section::Items | Section::Other => Part::Item(part),
                        });
                    }
                }
                _ => {}
            }
        }
        None
    }

    /// Whether the list's last bracket was seen.
    pub(crate) fn is_complete(&self) -> bool {
        self.complete
    }

    fn open(&mut self, at: usize) {
        let is_part = match self.section {
            Section::Metadata => self.depth == 1,
            Section::Items => self.depth == 2,
            Section::Other => false,
        };
        if is_part {
            self.start = Some(at);
        }
        self.depth += 1;
    }

    /// Goes on to the end of a string, or of what is here of it. At the top of the list it names what follows.
    fn read_string(&mut self) {
        let rest = &self.buffer[self.seen..];
        if self.escaped {
            self.escaped = false;
            self.seen += 1;
            return;
        }
        let Some(next) = memchr::memchr2(b'"', b'\\', rest) else {
            self.seen = self.buffer.len();
            return;
        };
        let at = self.seen + next;
        self.seen = at + 1;
        if self.buffer[at] == b'\\' {
            self.escaped = true;
            return;
        }
        let Some(start) = self.string.take() else { return };
        if self.depth == 1 {
            self.section = match &self.buffer[start..at] {
                b"metadata" => Section::Metadata,
                b"items" => Section::Items,
                _ => Section::Other,
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// All parts of a list that comes in pieces of these sizes, and whether it was whole.
    fn parts(list: &str, sizes: &[usize]) -> (Vec<String>, bool) {
        let mut pieces = Pieces::new();
        let mut found = Vec::new();
        let mut rest = list.as_bytes();
        for size in sizes.iter().copied().chain([list.len()]) {
            let (piece, later) = rest.split_at(size.min(rest.len()));
            rest = later;
            pieces.push(piece);
            while let Some(part) = pieces.next() {
                found.push(match part {
                    Part::Metadata(json) => format!("metadata {}", String::from_utf8_lossy(json)),
                    Part::Item(json) => format!("item {}", String::from_utf8_lossy(json)),
                });
            }
        }
        (found, pieces.is_complete())
    }

    const LIST: &str = r#"{"kind":"PodList","apiVersion":"v1","metadata":{"resourceVersion":"5"},
        "items":[{"metadata":{"name":"a"},"items":[{"x":[1]}]}, {"s":"}]\"\\", "é":"{["},{}]}"#;

    #[test]
    fn a_list_is_its_metadata_and_its_objects() {
        let expected = [
            r#"metadata {"resourceVersion":"5"}"#,
            r#"item {"metadata":{"name":"a"},"items":[{"x":[1]}]}"#,
            r#"item {"s":"}]\"\\", "é":"{["}"#,
            "item {}",
        ];
        assert_eq!(parts(LIST, &[]), (expected.map(str::to_owned).to_vec(), true));
    }

    #[test]
    fn a_list_may_be_empty_or_say_its_items_first() {
        assert_eq!(parts(r#"{"metadata":{},"items":null}"#, &[]), (vec!["metadata {}".to_owned()], true));
        assert_eq!(parts(r#"{"metadata":{},"items":[]}"#, &[]), (vec!["metadata {}".to_owned()], true));
        let sorted = r#"{"apiVersion":"v1","items":[{"a":1}],"kind":"items","metadata":{"b":2}}"#;
        let expected = [r#"item {"a":1}"#, r#"metadata {"b":2}"#].map(str::to_owned);
        assert_eq!(parts(sorted, &[]), (expected.to_vec(), true));
    }

    #[test]
    fn a_list_that_ends_early_is_not_complete() {
        for end in 1..LIST.len() {
            if let Some(cut) = LIST.get(..end) {
                assert!(!parts(cut, &[]).1, "{cut}");
            }
        }
    }

    #[test]
    fn nonsense_is_no_part_and_no_panic() {
        for text in ["", "}}]]", "null", "\"", "[{}]", "{\"items\":{}}}", "{\"items\":[[]]}"] {
            parts(text, &[1, 1, 1]);
        }
    }

    proptest! {
        #[test]
        fn the_sizes_of_the_pieces_do_not_matter(sizes in prop::collection::vec(0_usize..9, 0..80)) {
            prop_assert_eq!(parts(LIST, &sizes), parts(LIST, &[]));
        }
    }
}
