#: --label b=request
#: --label c=new
FROM busybox
LABEL a=1 b=2
LABEL a="x y"
