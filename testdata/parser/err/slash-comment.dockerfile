FROM a
// comment
