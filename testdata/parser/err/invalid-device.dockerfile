FROM a
RUN --device= x
RUN --device=a,b x
RUN --device=a,name=b x
RUN --device=a,required=x x
RUN --device=a,b=c x
