# escape=`
from a
copy a`
   # c [
  b
cmd [ `
 # [ no ]
 "a", `
"b"]
