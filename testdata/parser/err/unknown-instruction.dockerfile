FROM a
RNU b
XYZZY
workdri /x
