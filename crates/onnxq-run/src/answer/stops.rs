//! Texts that end an answer, found however the answer comes in pieces.

/// Text that may belong to one of them is held back until that is clear.
#[derive(Default)]
pub(super) struct Stops {
    list: Vec<String>,
    held: String,
}

impl Stops {
    pub(super) fn new(list: &[String]) -> Stops {
        Stops { list: list.to_vec(), held: String::new() }
    }

    /// More text: what of all may be shown now, and whether the answer ends there.
    ///
    /// It ends before the text that is complete first.
    pub(super) fn push(&mut self, text: &str) -> (String, bool) {
        self.held.push_str(text);
        let found = self.list.iter().filter_map(|stop| {
            let at = self.held.find(stop.as_str())?;
            Some((at + stop.len(), at))
        });
        if let Some((_, at)) = found.min() {
            self.held.truncate(at);
            return (std::mem::take(&mut self.held), true);
        }
        let shown = self.held.len() - self.ambiguous();
        (self.held.drain(..shown).collect(), false)
    }

    /// What is left when nothing more comes.
    pub(super) fn finish(&mut self) -> String {
        std::mem::take(&mut self.held)
    }

    /// Bytes at the end that one of the texts may begin with.
    fn ambiguous(&self) -> usize {
        let longest = |stop: &String| {
            let lengths = (1..stop.len()).rev().filter(|it| stop.is_char_boundary(*it));
            lengths.into_iter().find(|it| self.held.ends_with(&stop[..*it])).unwrap_or(0)
        };
        self.list.iter().map(longest).max().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::{collection::vec, prelude::*};

    fn all(stops: &[&str], pieces: &[&str]) -> (String, bool) {
        let list: Vec<String> = stops.iter().map(|it| (*it).to_owned()).collect();
        let mut stops = Stops::new(&list);
        let mut shown = String::new();
        for piece in pieces {
            let (text, ends) = stops.push(piece);
            shown += &text;
            if ends {
                return (shown, true);
            }
        }
        (shown + &stops.finish(), false)
    }

    #[test]
    fn an_answer_ends_before_the_text_that_is_complete_first() {
        assert_eq!(all(&["\n\n"], &["a\n", "b\n", "\nc"]), ("a\nb".into(), true));
        assert_eq!(all(&["END"], &["E", "N", "E", "N", "D", "x"]), ("EN".into(), true));
        assert_eq!(all(&["abc", "b"], &["ab", "c"]), ("a".into(), true));
        assert_eq!(all(&["abc", "c"], &["abc"]), (String::new(), true));
        assert_eq!(all(&["END"], &["the E", "N"]), ("the EN".into(), false));
        assert_eq!(all(&["ö", "ä!"], &["xä", "?ö"]), ("xä?".into(), true));
        assert_eq!(all(&[], &["a", "b"]), ("ab".into(), false));
    }

    #[test]
    fn nothing_is_shown_that_may_belong_to_the_end() {
        let mut stops = Stops::new(&["END".to_owned()]);
        assert_eq!(stops.push("a E"), ("a ".into(), false));
        assert_eq!(stops.push("N"), (String::new(), false));
        assert_eq!(stops.push("O E"), ("ENO ".into(), false));
    }

    proptest! {
        #[test]
        fn pieces_change_nothing(text in "[ab]{0,24}", stops in vec("[ab]{1,4}", 0..3), cuts in vec(0usize..24, 0..8)) {
            let stops: Vec<&str> = stops.iter().map(String::as_str).collect();
            let mut cuts: Vec<usize> = cuts.into_iter().map(|it| it.min(text.len())).collect();
            cuts.extend([0, text.len()]);
            cuts.sort_unstable();
            let pieces: Vec<&str> = cuts.windows(2).map(|it| &text[it[0]..it[1]]).collect();
            prop_assert_eq!(all(&stops, &pieces), all(&stops, &[&text]));
        }
    }
}
