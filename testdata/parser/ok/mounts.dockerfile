FROM a
RUN --mount=target=/x,ro=false --mount=type=cache,target=/c,sharing=locked,id=i,mode=0700,uid=1,gid=2 --mount=type=$T,required,size=$S --mount=type=tmpfs,target=/t,size=64m --mount=type=secret,id=s,env=E,required --mount=type=ssh,required=true --network=none --security=insecure --device=vendor/dev=a,required make
RUN --mount=type=bind,\"target=/a,b\",rw x
