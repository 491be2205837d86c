FROM scratch
LABEL a="👩‍👩‍👧 é" b=${X^}
