//! One pattern of a list: what kind it is, and whether it matches a path.

use alloc::{string::String, vec, vec::Vec};
use core::mem;

use crate::wildcard::{BadPattern, Token, Unit, next_unit, parse, takes};

const SLASH: Unit = b'/' as Unit;

/// A pattern by the way in which it can be looked up.
#[derive(Debug, Clone)]
pub(super) enum Form {
    /// No wildcards: the whole path.
    Exact(Vec<u8>),
    /// `text**`: any path that begins so.
    Start(Vec<u8>),
    /// `**text`: any path that ends so, and `name` itself for `**/name`.
    End(Vec<u8>),
    /// Everything else.
    Glob(Glob),
}

/// A pattern with wildcards.
#[derive(Debug, Clone)]
pub(super) struct Glob {
    pieces: Vec<Piece>,
}

/// A piece of a pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    /// A literal, `?`, `*` or a class.
    Token(Token),
    /// `**/`: nothing, or any folders.
    Folders,
    /// `**` at the end: anything.
    Rest,
}

impl Form {
    /// Reads a cleaned pattern without its `!`.
    pub(super) fn parse(text: &str) -> Result<Self, BadPattern> {
        let tokens = parse(text.as_bytes())?;
        if tokens.iter().any(|it| matches!(it, Token::Class(class) if class.is_backwards())) {
            return Err(BadPattern);
        }
        let mut pieces = Vec::new();
        let mut rest = tokens.as_slice();
        while let Some((first, tail)) = rest.split_first() {
            rest = tail;
            if (first, rest.first()) != (&Token::Star, Some(&Token::Star)) {
                pieces.push(Piece::Token(first.clone()));
                continue;
            }
            rest = &rest[1..];
            if let Some((Token::Literal(SLASH), tail)) = rest.split_first() {
                rest = tail;
            }
            pieces.push(if rest.is_empty() { Piece::Rest } else { Piece::Folders });
        }
        Ok(Self::sort(text, pieces))
    }

    fn sort(text: &str, pieces: Vec<Piece>) -> Self {
        let is_plain = |pieces: &[Piece]| {
            pieces.iter().all(|it| matches!(it, Piece::Token(Token::Literal(_))))
        };
        // With an escape, the text is not what it matches.
        if !text.contains('\\') {
            let bytes = text.as_bytes();
            if is_plain(&pieces) {
                return Self::Exact(bytes.to_vec());
            }
            match pieces.as_slice() {
                [Piece::Rest] => return Self::Start(Vec::new()),
                [start @ .., Piece::Rest] if is_plain(start) && text.ends_with("**") => {
                    return Self::Start(bytes[..bytes.len() - 2].to_vec());
                }
                // `**text` matches any path with that end, not only whole names.
                [Piece::Folders, end @ ..] if is_plain(end) => {
                    return Self::End(bytes[2..].to_vec());
                }
                _ => {}
            }
        }
        Self::Glob(Glob { pieces })
    }

    /// Reports whether the pattern matches exactly this path.
    pub(super) fn matches(&self, path: &[u8]) -> bool {
        match self {
            Self::Exact(text) => path == text,
            Self::Start(start) => path.starts_with(start),
            Self::End(end) => path.ends_with(end) || end.strip_prefix(b"/") == Some(path),
            Self::Glob(glob) => glob.matches(path),
        }
    }

    /// Returns the text with which everything that matches starts.
    pub(super) fn start(&self) -> Vec<u8> {
        match self {
            Self::Exact(text) | Self::Start(text) => text.clone(),
            Self::End(_) => Vec::new(),
            Self::Glob(glob) => glob.texts().next().unwrap_or_default(),
        }
    }
}

impl Glob {
    /// Returns the texts between wildcards, some of them empty.
    fn texts(&self) -> impl Iterator<Item = Vec<u8>> {
        self.pieces
            .split(|it| literal(it).is_none())
            .map(|text| text.iter().filter_map(literal).collect::<String>().into_bytes())
    }

    /// Returns the longest text between wildcards.
    pub(super) fn longest_text(&self) -> Vec<u8> {
        self.texts().max_by_key(Vec::len).unwrap_or_default()
    }

    /// Matches a whole path, all ways at once.
    pub(super) fn matches(&self, path: &[u8]) -> bool {
        let n_pieces = self.pieces.len();
        let mut places = vec![false; n_pieces + 1];
        let mut next = vec![false; n_pieces + 1];
        self.arrive(&mut places, 0);
        let mut rest = path;
        while let Some((unit, tail)) = next_unit(rest) {
            rest = tail;
            let mut is_alive = false;
            for (piece_idx, piece) in self.pieces.iter().enumerate() {
                if !mem::take(&mut places[piece_idx]) {
                    continue;
                }
                let (stays, passes) = match piece {
                    Piece::Token(Token::Star) => (unit != SLASH, false),
                    Piece::Token(token) => (false, takes(token, unit)),
                    Piece::Folders => (true, unit == SLASH),
                    Piece::Rest => (true, false),
                };
                if stays {
                    next[piece_idx] = true;
                    // What may end at any time also ends here; folders only end at a slash.
                    if *piece != Piece::Folders {
                        self.arrive(&mut next, piece_idx + 1);
                    }
                }
                if passes {
                    self.arrive(&mut next, piece_idx + 1);
                }
                is_alive |= stays || passes;
            }
            if !is_alive {
                return false;
            }
            places[n_pieces] = false;
            mem::swap(&mut places, &mut next);
        }
        places[n_pieces]
    }

    /// Marks a place, and those after it that need no character to be reached.
    fn arrive(&self, places: &mut [bool], place: usize) {
        for (piece_idx, is_reached) in places.iter_mut().enumerate().skip(place) {
            *is_reached = true;
            match self.pieces.get(piece_idx) {
                Some(Piece::Token(Token::Star) | Piece::Folders | Piece::Rest) => {}
                _ => break,
            }
        }
    }
}

fn literal(piece: &Piece) -> Option<char> {
    match piece {
        Piece::Token(Token::Literal(unit)) => char::from_u32(*unit),
        _ => None,
    }
}
